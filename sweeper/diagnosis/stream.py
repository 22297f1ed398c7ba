"""Bytes in any chunking -> the lines that matter, numbered, in bounded memory.

A line is decoded only when it holds a literal, or when somebody asked to see every line for a while (a traceback, a
message of several lines). A line without end is cut into overlapping windows; the numbers stay those of `grep -n`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sweeper.diagnosis.scan import make_scanner
from sweeper.engines.lines import ANSI

LONGEST = 1 << 20
"""Bytes without a newline that are held back before they are looked at as part of one endless line."""
WINDOW = 4096
"""Bytes kept on each side of a hit in a line longer than this."""
_TOLERATED = 2000
"""Hits of muted literals after which the scanner is built again without them."""
HISTORY = 1 << 15
"""Bytes of the block before that stay readable, for looking back."""

Visit = Callable[[int, bytes, Sequence[int]], None]
Whole = Callable[[bytes, int], None]


class LineStream:
    """Calls `visit(number, line, literals)`; lines come without newline and without colour codes.

    `whole(block, number of its first line)` is called before the lines of a block are.
    """

    def __init__(self, literals: Sequence[bytes], visit: Visit, whole: Whole) -> None:
        self.every = False
        """While True, every line is visited."""
        self.counts = [0] * len(literals)
        """Hits per muted literal."""
        self._literals = dict(enumerate(literals))
        self._muted: set[int] = set()
        self._dropped: tuple[int, ...] = ()
        self._tolerated = 0
        self._scanner = self._all = make_scanner(self._literals)
        self._visit = visit
        self._whole = whole
        self._last = (b"", 1)
        self._spoken = (b"", 1)
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._inside = False
        self._history = b""
        self._block = b""
        self._start = 0
        self._number = 1

    @property
    def lines(self) -> int:
        """Lines begun so far."""
        return self._number if self._rest_size or self._inside else self._number - 1

    def mute(self, literal: int) -> None:
        """From now on only count this literal."""
        self._muted.add(literal)

    def unmute(self) -> None:
        """Visit every literal again."""
        self._muted = set()
        self._dropped, self._tolerated, self._scanner = (), 0, self._all

    def last_lines(self) -> Iterator[tuple[int, bytes, list[int]]]:
        """Lines with muted literals in the last block, as they would have been visited."""
        block, number = self._last
        position = 0
        for literal, end in self._all.scan(block)[0]:
            if end <= position or literal not in self._muted:
                continue
            start = block.rfind(b"\n", position, end) + 1 or position
            stop = block.find(b"\n", end)
            number += block.count(b"\n", position, start)
            position = len(block) if stop < 0 else stop
            yield number, block[start : min(position, start + WINDOW)], [literal]

    def last_line(self) -> tuple[int, bytes] | None:
        """Number and end of the last line that is not blank; None where all are."""
        block, number = self._spoken
        text = block.rstrip()
        start = text.rfind(b"\n") + 1
        return (number + block.count(b"\n", 0, start), text[start:][-WINDOW:]) if text else None

    def feed(self, data: bytes) -> None:
        """Takes the next bytes; complete lines are visited before it returns."""
        for start in range(0, len(data), LONGEST):
            self._feed(data[start : start + LONGEST] if len(data) > LONGEST else data)

    def _feed(self, data: bytes) -> None:
        cut = data.rfind(b"\n") + 1
        if cut:
            self._rest.append(data[:cut])
            block = b"".join(self._rest)
            self._rest, self._rest_size = [], 0
            self._take(block)
            self._inside = False
            data = data[cut:]
        if data:
            self._rest.append(data)
            self._rest_size += len(data)
            if self._rest_size >= LONGEST:
                self._endless()

    def close(self) -> None:
        """The last line may have no newline."""
        if self._rest_size:
            block = b"".join(self._rest)
            self._rest, self._rest_size, self._inside = [], 0, True
            self._take(block)

    def before(self, count: int) -> Iterator[bytes]:
        """Up to `count` lines before the one being visited, nearest first."""
        end = self._start - 1
        while count > 0 and end >= 0:
            start = self._block.rfind(b"\n", 0, end) + 1
            yield self._block[start:end]
            end, count = start - 1, count - 1
        if count > 0 and self._history:
            rows = self._history.split(b"\n")
            yield from rows[::-1][:count]

    def _endless(self) -> None:
        block = b"".join(self._rest)
        # The literal that straddles the cut is seen again with the next piece.
        self._rest = [block[-WINDOW:]]
        self._rest_size = WINDOW
        self._inside = True
        self._take(block)

    def _take(self, block: bytes) -> None:
        if b"\x00" in block:
            block = block.replace(b"\x00", b"")
        hits, coloured = self._scanner.scan(block)
        if coloured:
            block = ANSI.sub("", block.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            hits, _ = self._scanner.scan(block)
        self._block, self._start = block, 0
        self._last = (block, self._number)
        if not block.isspace():
            self._spoken = self._last
        self._whole(block, self._number)
        for literal in self._dropped:
            self.counts[literal] += block.count(self._literals[literal])
        self._walk(block, hits)
        if self._tolerated > _TOLERATED:
            self._drop()
        self._history = block[-HISTORY:].rstrip(b"\n")
        self._block = b""

    def _walk(self, block: bytes, hits: list[tuple[int, int]]) -> None:
        position, index, size, total = 0, 0, len(block), len(hits)
        muted, counts = self._muted, self.counts
        while position < size:
            while muted and index < total and hits[index][0] in muted:
                counts[hits[index][0]] += 1
                self._tolerated += 1
                index += 1
            if not self.every:
                if index >= total:
                    break
                start = block.rfind(b"\n", position, hits[index][1]) + 1 or position
                self._number += block.count(b"\n", position, start)
                position = start
            end = block.find(b"\n", position)
            end = size if end < 0 else end
            first = index
            while index < total and hits[index][1] <= end:
                index += 1
            self._start = position
            if end - position > 2 * WINDOW:
                self._windows(block, position, end, hits[first:index])
            else:
                self._visit(
                    self._number, block[position:end].rstrip(b"\r"), [number for number, _ in hits[first:index]]
                )
            if end < size:
                self._number += 1
            position = end + 1
        if position < size:
            self._number += block.count(b"\n", position)

    def _drop(self) -> None:
        """Literals that only get counted cost a call each; without them the scanner flies over their lines."""
        self._dropped, self._tolerated = tuple(self._muted), 0
        self._scanner = make_scanner({n: text for n, text in self._literals.items() if n not in self._muted})

    def _windows(self, block: bytes, start: int, end: int, hits: list[tuple[int, int]]) -> None:
        """Visits the neighbourhoods of the hits in a very long line."""
        index = 0
        while index < len(hits):
            low = max(start, hits[index][1] - WINDOW)
            high = min(end, hits[index][1] + WINDOW)
            first = index
            while index < len(hits) and hits[index][1] <= high:
                index += 1
            self._visit(self._number, block[low:high], [number for number, _ in hits[first:index]])
