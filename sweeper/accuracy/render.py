"""Accuracy results and their differences in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweeper.accuracy.result import AccuracyResult, difference, score_against
from sweeper.core.accuracy import Difference, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """B against reference A: a difference of right answers, or a relative perplexity score."""

    a: AccuracyResult
    b: AccuracyResult
    difference: Difference | None
    score: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1, "preset": self.b.preset, "reference": self.a.model, "candidate": self.b.model,
            "difference": self.difference.to_json() if self.difference else None, "relative_score": self.score,
        }  # fmt: skip

    def to_text(self) -> str:
        if self.score is not None:
            return f"relative score {self.score:.2f} (reference {self.a.model or self.a.source} = 100)\n"
        if self.difference is None:
            return "no question in common: nothing to compare\n"
        found = self.difference
        p = "-" if found.p is None else f"{found.p:.3g}"
        paired = f", {found.only_candidate} won and {found.only_reference} lost of {found.pairs}" if found.pairs else ""
        return f"{found.points:+.2f} points against {self.a.model or self.a.source}: {found.finding} " \
               f"({found.test}, p = {p}{paired})\n"  # fmt: skip


def against(a: AccuracyResult, b: AccuracyResult) -> Against:
    """Raises UsageError when the two are of different presets."""
    found = difference(a, b)
    return Against(a=a, b=b, difference=found, score=score_against(a, b))


def text_of(found: AccuracyResult) -> str:
    """One line, and a line for each miss."""
    head = f"{found.preset} {found.model}".strip()
    if found.perplexity is not None and found.nll is not None:
        return f"{head}: perplexity {_ppl(found.perplexity)}, NLL {found.nll:.4f} nats over {found.tokens} tokens\n"
    interval = wilson(found.right, found.n)
    if interval is None:
        return f"{head}: no questions\n"
    right = f"{found.right:g}" if float(found.right).is_integer() else f"{found.right:.3f}"
    line = f"{head}: {right} of {found.n} right, {100 * interval.share:.2f} % " \
           f"(95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} %)\n"  # fmt: skip
    line += f"  note: {found.note}\n" if found.note else ""
    misses = [item for item in found.items if item.why and item.score < 1]
    return line + "".join(f"  {item.id}: {item.said or '-'} ({item.why})\n" for item in misses)


def _ppl(value: float) -> str:
    return f"{value:.4f}" if value < 1e6 else f"{value:.3g}"
