"""What a sweep would do, without doing it: cells, reasons, commands, memory, time."""
