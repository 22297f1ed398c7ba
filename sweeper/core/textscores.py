"""The real model on fixed natural text, cell against reference cell: NLL, perplexity, agreement. Pure.

There are no golden vectors for 240 GB of weights; the run's reference cell stands in. Two healthy cells of the same
weights differ by rounding only: a relative score below the tolerance means that a cell computes something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeper.core.accuracy import relative_score

MIN_RELATIVE_SCORE = 97.0
"""100 * PPL_ref / PPL. The largest difference between quantisations of one model in protocols known to us is 98.5
(NVFP4 against BF16); two backends of one quantisation differ by tenths. Both directions count."""

MIN_AGREEMENT = 0.90
"""Least share of positions whose best token is the reference's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScores:
    """`nll` in nats per token over `tokens` scored tokens; None and `problem` where the server scores no prompts.

    `best`: per text, the id of the most likely token at each scored position.
    """

    model: str
    nll: float | None
    tokens: int
    best: tuple[tuple[int, ...], ...] = field(default=())
    problem: str | None = None

    @property
    def perplexity(self) -> float | None:
        return None if self.nll is None else math.exp(min(self.nll, 700.0))

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model, "nll": self.nll, "tokens": self.tokens, "best": [list(row) for row in self.best],
            "problem": self.problem,
        }  # fmt: skip

    @staticmethod
    def from_json(content: dict[str, Any]) -> TextScores:
        return TextScores(**{**content, "best": tuple(tuple(row) for row in content["best"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextComparison:
    """A cell against the reference. `verdict`: right, degraded, garbage or unchecked; `why` for a person."""

    verdict: str
    relative_score: float | None
    nll_shift: float | None
    agreement: float | None
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "relative_score": self.relative_score, "nll_shift": self.nll_shift, "agreement": self.agreement,
            "reasons": [self.why] if self.why else [],
        }  # fmt: skip


def compare_text(
    reference: TextScores,
    cell: TextScores,
    *,
    min_score: float = MIN_RELATIVE_SCORE,
    min_agreement: float = MIN_AGREEMENT,
) -> TextComparison:
    """How far a cell is from the reference cell, and whether that is too far to be ranked."""
    if cell.nll is None or reference.nll is None:
        why = cell.problem or reference.problem or "no text was scored"
        return TextComparison(verdict="unchecked", relative_score=None, nll_shift=None, agreement=None, why=why)
    if math.isnan(cell.nll):
        return TextComparison(
            verdict="garbage", relative_score=None, nll_shift=None, agreement=None, why="NaN in the log-probabilities"
        )
    if cell.tokens != reference.tokens:
        why = f"{cell.tokens} tokens scored, the reference has {reference.tokens}"
        return TextComparison(verdict="unchecked", relative_score=None, nll_shift=None, agreement=None, why=why)
    shift = cell.nll - reference.nll
    score = relative_score(math.exp(min(shift, 700.0)), 1.0)
    agreement = agreed(reference.best, cell.best)
    judged, reason = _judged(score, agreement, min_score, min_agreement)
    return TextComparison(verdict=judged, relative_score=score, nll_shift=shift, agreement=agreement, why=reason)


def agreed(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> float | None:
    """Share of positions with the same best token; None where there is nothing to compare."""
    pairs = [(x, y) for row_a, row_b in zip(a, b, strict=False) for x, y in zip(row_a, row_b, strict=False)]
    return sum(x == y for x, y in pairs) / len(pairs) if pairs else None


def _judged(score: float, agreement: float | None, min_score: float, min_agreement: float) -> tuple[str, str | None]:
    # A cell that is better than its reference by more than rounding is as wrong as one that is worse.
    worst = min(score, 10000 / score) if score else 0.0
    if worst < min_score:
        verdict = "garbage" if worst < 100 - 8 * (100 - min_score) else "degraded"
        return verdict, f"perplexity on fixed text: relative score {score:.2f}, reference 100, at least {min_score:g}"
    if agreement is not None and agreement < min_agreement:
        verdict = "garbage" if agreement < min_agreement / 2 else "degraded"
        return (
            verdict,
            f"best token agrees with the reference at {agreement:.1%} of positions, at least {min_agreement:.0%}",
        )
    return "right", None
