"""`python -m sweeper`."""

from sweeper.cli.main import entry

entry()
