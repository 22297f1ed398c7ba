"""Where our figure stands among all that was published for the same setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.core.claims import Claim, Figure, Reading
from sweeper.core.claims_compare import same
from sweeper.core.windows import TOTAL_SOURCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """All claims for the conditions of one of our figures, engine and backend left free, beside it."""

    figure: Figure
    ours: Reading
    claims: tuple[Claim, ...]
    """By value, lowest first."""

    def middle(self) -> float:
        """Median of the claims' mid-values."""
        values = sorted((claim.low + claim.high) / 2 for claim in self.claims)
        half = len(values) // 2
        return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2

    def below(self) -> int:
        """Claims lower than our figure."""
        return sum((claim.low + claim.high) / 2 < self.ours.value for claim in self.claims)


SETTING = ("model", "quantization", "gpu", "gpus", "speculative", "concurrency")


def distribution(figure: Figure, claims: Sequence[Claim]) -> Distribution | None:
    """Output claims that agree with the figure on model, format, GPUs, speculation and concurrency.

    Left out: readings, promises, retracted ones. None where there is no claim or no figure.
    """
    ours = figure.readings.get(("output", "tok/s"))
    if ours is None or figure.counted not in {None, *TOTAL_SOURCES}:
        return None
    fitting = [claim for claim in claims if _same_setting(claim, figure)]
    fitting.sort(key=lambda claim: (claim.low + claim.high) / 2)
    return Distribution(figure=figure, ours=ours, claims=tuple(fitting)) if fitting else None


def _same_setting(claim: Claim, figure: Figure) -> bool:
    if (
        claim.kind != "output"
        or claim.bound == "ceiling"
        or claim.promised
        or claim.retracted
        or claim.reading_of
        or claim.same_as
    ):
        return False
    asked = SETTING if claim.conditions.speculative == "none" else (*SETTING, "draft_tokens")
    if any(getattr(claim.conditions, name) is None for name in asked):
        return False
    for name in (*SETTING, "draft_tokens", "context"):
        a, b = getattr(claim.conditions, name), getattr(figure.conditions, name)
        if a is not None and b is not None and not same(name, a, b):
            return False
    return True
