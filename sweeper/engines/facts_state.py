"""What a fact reader has gathered so far, and the shape of a rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_RATES = 10_000
"""Periodic rates kept: a day of ten-second lines."""
MAX_FALLBACKS = 20


@dataclass(slots=True)
class Facts:
    """Mutable; `values` and `evidence` are keyed by the fields of EffectiveConfig."""

    values: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, int] = field(default_factory=dict)
    moe: list[tuple[str, str, int]] = field(default_factory=list)
    """(as written, family as written, line) of every distinct selection."""
    attention: list[tuple[str, int]] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    marks: dict[str, float | None] = field(default_factory=dict)
    """Milestone -> stamp in seconds of its first occurrence, in order of appearance."""
    durations: dict[str, float] = field(default_factory=dict)
    """Boot phases whose duration the text itself gives: the slowest rank counts."""
    skipped: dict[str, int] = field(default_factory=dict)
    tuned: dict[str, int] = field(default_factory=dict)
    jit_lines: int = 0
    jit_watched: bool = False
    ready: bool = False
    stamp_s: float | None = None
    """Stamp of the line at hand."""

    def first(self, name: str, value: Any, line_no: int) -> None:
        """Keep the first proof of a fact."""
        if value is not None and name not in self.values:
            self.values[name] = value
            self.evidence[name] = line_no

    def last(self, name: str, value: Any, line_no: int) -> None:
        """Keep the latest proof of a fact."""
        if value is not None:
            self.values[name] = value
            self.evidence[name] = line_no

    def largest(self, name: str, value: float | int, line_no: int) -> None:
        """Keep the largest figure: the slowest or fullest rank decides."""
        if name not in self.values or value > self.values[name]:
            self.last(name, value, line_no)

    def smallest(self, name: str, value: float | int, line_no: int) -> None:
        """Keep the smallest figure: the rank with the least room decides."""
        if name not in self.values or value < self.values[name]:
            self.last(name, value, line_no)

    def fell_back(self, sentence: str, line_no: int) -> None:
        if sentence not in self.fallbacks and len(self.fallbacks) < MAX_FALLBACKS:
            self.fallbacks.append(sentence)
            self.evidence.setdefault("fallbacks", line_no)

    def rate(self, tokens_per_s: float, line_no: int) -> None:
        if len(self.rates) < MAX_RATES:
            self.rates.append(tokens_per_s)
            self.evidence.setdefault("generation_tok_s", line_no)

    def mark(self, name: str) -> None:
        """The first time that a milestone shows."""
        self.marks.setdefault(name, self.stamp_s)

    def took(self, name: str, seconds: float) -> None:
        self.durations[name] = max(seconds, self.durations.get(name, 0.0))


Apply = Callable[[Facts, "re.Match[str]", int], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`apply` runs when `literal` is in the line and `pattern` is found in it: the first rule that fits, no other."""

    literal: str
    pattern: re.Pattern[str]
    apply: Apply


def rule(literal: str, pattern: str, apply: Apply) -> Rule:
    return Rule(literal, re.compile(pattern), apply)


def number(text: str) -> int:
    """`2,702,256` -> 2702256."""
    return int(text.replace(",", ""))
