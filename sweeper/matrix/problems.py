"""What is wrong with a file a person wrote: every complaint at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sweeper.core.errors import BadFile

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One complaint. `line` from 1, None when the file could not be read at all."""

    text: str
    line: int | None = None
    key: str | None = None


class BadMatrix(BadFile):
    """All problems of one file, in the order of its lines; the attributes of BadFile are those of the first."""

    def __init__(self, path: str, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        ordered = sorted(problems, key=lambda problem: problem.line or 0)
        first = ordered[0]
        super().__init__(path, first.text, line=first.line, key=first.key, hint=hint)
        self.problems = tuple(ordered)
        rest = [BadFile(path, one.text, line=one.line, key=one.key).message for one in ordered[1:]]
        if rest:
            self.message = "\n  ".join([f"{len(ordered)} problems in {path}", self.message, *rest])
            self.args = (self.message,)


def written(path: KeyPath) -> str | None:
    """`axes.parallelism[2].tp`; None for the file as a whole."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or None
