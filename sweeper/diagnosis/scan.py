"""One pass over a block of bytes that reports where any of a few hundred literals ends.

Hyperscan does it at more than 1 GB/s; without it (no wheel for the platform) one alternation of `re` gives the same
answer more slowly. Only lines that hold a literal are ever decoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

COLOUR = rb"\x1b|\x9b\[|\^\[\[[0-9]|\[[0-9]{1,2}(?:;[0-9]{1,3}){0,4}m"
"""Any sign of a colour code, whole or broken."""


class Scanner(Protocol):
    """`scan` returns (number of the literal, offset after its last byte), in order of the offset."""

    def scan(self, block: bytes) -> list[tuple[int, int]]: ...

    def coloured(self, block: bytes) -> bool:
        """True where the block holds something that looks like a terminal colour."""


def make_scanner(literals: Sequence[str], *, portable: bool = False) -> Scanner:
    """The fastest scanner this machine has; `portable` forces the one of the standard library."""
    encoded = [literal.encode() for literal in literals]
    if not portable and encoded:
        try:
            import hyperscan
        except ImportError:
            pass
        else:
            return _Hyperscan(hyperscan, encoded)
    return _Regex(encoded)


class _Hyperscan:
    def __init__(self, engine: Any, literals: Sequence[bytes]) -> None:
        flags = engine.HS_FLAG_SINGLEMATCH
        self._hits = _database(engine, [re.escape(literal) for literal in literals], [0] * len(literals))
        self._colour = _database(engine, [COLOUR], [flags])
        self._found: list[tuple[int, int]] = []
        self._seen = False

    def scan(self, block: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []

        def hit(number: int, start: int, end: int, flags: int, context: object) -> None:
            found.append((number, end))

        self._hits.scan(block, match_event_handler=hit)
        found.sort(key=_by_end)
        return found

    def coloured(self, block: bytes) -> bool:
        seen: list[int] = []
        self._colour.scan(block, match_event_handler=lambda number, *rest: seen.append(number))
        return bool(seen)


def _by_end(hit: tuple[int, int]) -> int:
    return hit[1]


def _database(engine: Any, expressions: Sequence[bytes], flags: Sequence[int]) -> Any:
    database = engine.Database(mode=engine.HS_MODE_BLOCK)
    database.compile(
        expressions=list(expressions), ids=list(range(len(expressions))), elements=len(expressions), flags=list(flags)
    )
    return database


class _Regex:
    def __init__(self, literals: Sequence[bytes]) -> None:
        self._literals = literals
        self._any = re.compile(b"|".join(map(re.escape, literals)) or rb"(?!)")
        self._colour = re.compile(COLOUR)

    def scan(self, block: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        position = 0
        while (match := self._any.search(block, position)) is not None:
            start = block.rfind(b"\n", 0, match.start()) + 1
            end = block.find(b"\n", match.end())
            position = len(block) if end < 0 else end
            # An alternation hides the second of two overlapping literals, so the line is searched for each of them.
            for number, literal in enumerate(self._literals):
                at = block.find(literal, start, position)
                if at >= 0:
                    found.append((number, at + len(literal)))
        found.sort(key=_by_end)
        return found

    def coloured(self, block: bytes) -> bool:
        return self._colour.search(block) is not None
