"""One pass over a block of bytes that reports where any of a few hundred literals ends.

Hyperscan does it at more than 1 GB/s; without it (no wheel for the platform) one alternation of `re` gives the same
answer more slowly. Only lines that hold a literal are ever decoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

COLOUR = rb"\x1b|\x9b\[|\^\[\[[0-9]|\[[0-9]{1,2}(?:;[0-9]{1,3}){0,4}m"
"""Any sign of a colour code, whole or broken."""

Hits = list[tuple[int, int]]


class Scanner(Protocol):
    """Knows some literals by number."""

    def scan(self, block: bytes) -> tuple[Hits, bool]:
        """(number, offset after its last byte) in order of the offset; and whether there are colour codes."""


def make_scanner(literals: Mapping[int, bytes], *, portable: bool = False) -> Scanner:
    """The fastest scanner this machine has; `portable` forces the one of the standard library."""
    if not portable:
        try:
            import hyperscan
        except ImportError:
            pass
        else:
            return _Hyperscan(hyperscan, literals)
    return _Regex(literals)


class _Hyperscan:
    def __init__(self, engine: Any, literals: Mapping[int, bytes]) -> None:
        self._colour = max(literals, default=0) + 1
        self._database = engine.Database(mode=engine.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[*map(re.escape, literals.values()), COLOUR],
            ids=[*literals, self._colour],
            elements=len(literals) + 1,
            # One report per block is enough for colours; every literal is wanted.
            flags=[*[0] * len(literals), engine.HS_FLAG_SINGLEMATCH],
        )

    def scan(self, block: bytes) -> tuple[Hits, bool]:
        found: Hits = []
        colour, coloured = self._colour, False

        def hit(number: int, start: int, end: int, flags: int, context: object) -> None:
            nonlocal coloured
            if number == colour:
                coloured = True
            else:
                found.append((number, end))

        self._database.scan(block, match_event_handler=hit)
        found.sort(key=_by_end)
        return found, coloured


class _Regex:
    def __init__(self, literals: Mapping[int, bytes]) -> None:
        self._literals = literals
        self._any = re.compile(b"|".join(map(re.escape, literals.values())) or rb"(?!)")
        self._colour = re.compile(COLOUR)

    def scan(self, block: bytes) -> tuple[Hits, bool]:
        found: Hits = []
        position = 0
        while (match := self._any.search(block, position)) is not None:
            start = block.rfind(b"\n", 0, match.start()) + 1
            end = block.find(b"\n", match.end())
            position = len(block) if end < 0 else end
            # An alternation hides the second of two overlapping literals, so the line is searched for each of them.
            for number, literal in self._literals.items():
                at = block.find(literal, start, position)
                if at >= 0:
                    found.append((number, at + len(literal)))
        found.sort(key=_by_end)
        return found, self._colour.search(block) is not None


def _by_end(hit: tuple[int, int]) -> int:
    return hit[1]
