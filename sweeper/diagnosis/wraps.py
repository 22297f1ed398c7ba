"""Logs that a terminal or a mail wrapped: puts the rows of one line together again, keeping the line numbers.

A second route, tried on small logs only, and only where the first one found no cause: the rows below the first of a
line become empty lines, so every number stays that of the file.
"""

from __future__ import annotations

import re
from collections import Counter

from sweeper.engines.lines import clean, strip_ansi

LARGEST = 8 << 20
"""Bytes up to which a log may be unwrapped: nobody pastes more."""
_SHORTEST = 40
"""No terminal is narrower."""
_WIDEST = 400
_OWN_LINE = re.compile(
    r"^\s*File \"|^Traceback|^\s*$|^(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt))\b|^\w+(?:\.\w+)+: "
    r"|^During handling|^The above"
)
_CODE = re.compile(r"^\s{4,}\S")
_TRIMMED = 4
"""A paste may have lost so many blanks at the end of a full row."""


def may_be_wrapped(chunks: list[bytes]) -> bool:
    """A quick no for most logs: some row is wider than any terminal."""
    return all(len(row) <= 2 * _WIDEST for chunk in chunks for row in chunk.split(b"\n"))


def looks_wrapped(rows: list[str]) -> int | None:
    """Width of the terminal, where at least two rows end exactly there, no row is longer, and text goes on below."""
    lengths = [len(row) for row in rows]
    width = max(lengths, default=0)
    if not _SHORTEST <= width <= _WIDEST:
        return None
    full = [index for index, length in enumerate(lengths[:-1]) if length == width]
    if len(full) < 2:
        return None
    bare = sum(1 for index in full if _is_bare(rows[index + 1]))
    # A ruler (`=====`) or a table has full rows too; text that goes on does not repeat itself.
    distinct = Counter(rows[index] for index in full)
    return width if bare >= 0.6 * len(full) and len(distinct) > len(full) / 2 else None


def unwrapped(rows: list[str], width: int | None, glue: str) -> tuple[bytes, set[int]]:
    """The rows joined with `glue` (nothing where a word was cut, a blank where a blank was lost), and the numbers of
    the lines that were made of several."""
    out: list[str] = []
    joined: set[int] = set()
    index = 0
    while index < len(rows):
        line, end = rows[index], index
        while end + 1 < len(rows) and end - index < 60 and _continues(rows[end], rows[end + 1], width):
            end += 1
            lost = glue if width is None or len(rows[end - 1]) >= width else " "
            line += lost + rows[end]
        out.append(line)
        if end > index:
            joined.add(index + 1)
        out += [""] * (end - index)
        index = end + 1
    return "\n".join(out).encode(), joined


def rows_of(data: bytes) -> tuple[list[str], int | None]:
    """Rows, and the width they were wrapped at. A terminal does not count colour codes; a program that folds does."""
    raw = [row.rstrip("\r") for row in data.decode("utf-8", "replace").split("\n")]
    width = looks_wrapped(raw)
    if width is not None:
        return raw, width
    plain = [strip_ansi(row) for row in raw]
    return plain, looks_wrapped(plain)


def _continues(row: str, below: str, width: int | None) -> bool:
    if not below.strip() or len(row) < _SHORTEST:
        return False
    if width is not None:
        if len(row) == width:
            return True
        return (
            len(row) >= width - _TRIMMED and _is_bare(below) and not below[0].isspace() and not _OWN_LINE.match(below)
        )
    # Indented rows are code: nobody needs their second half.
    return not row[0].isspace() and _is_bare(below) and not _OWN_LINE.match(below) and not _CODE.match(below)


def _is_bare(row: str) -> bool:
    """Without any prefix of its own."""
    line = clean(row)
    return line.process is None and line.level is None and line.stamp_s is None and line.source is None
