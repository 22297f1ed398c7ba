"""What speculative decoding did to a cell: speed-up against the same cell without it, and one sentence why.

A step that verifies K drafts takes `step_cost` times as long as a plain step and yields `length` tokens instead of one.
It pays when length > step_cost, so the measured step cost is the break-even acceptance length. Where only some steps
draft (n-grams that find no match) both are means over all steps: tokens a step and its cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sweeper.core.points import DecodePoint
from sweeper.core.stats import NOISE
from sweeper.core.values import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class MtpEffect:
    """Against the paired cell. None: what it needs was not measured."""

    speedup: float | None
    """Decode rate with / without."""
    length: float | None
    rate: float | None
    break_even: float | None
    """Acceptance length that would make both equally fast: measured cost of a step over that of a plain one."""
    model_break_even: float | None
    """The same from bandwidth and links alone (`roofline.SpeedOfLight.break_even`)."""
    steps_s: float | None
    """Per stream."""
    plain_steps_s: float | None
    sentence: str


def paired_cell(cell: Cell, others: Iterable[tuple[str, Cell]]) -> str | None:
    """Id of the cell that differs in nothing but the missing speculation (and its name); None where there is none."""
    if cell.speculative is None:
        return None
    wanted = replace(cell, speculative=None, name=None)
    return next((cell_id for cell_id, other in others if replace(other, name=None) == wanted), None)


def mtp_effect(
    point: DecodePoint, plain: DecodePoint | None, *, drafts: int, model_break_even: float | None = None
) -> MtpEffect:
    """`point` with speculation, `plain` without: same workload and concurrency. `drafts`: tokens drafted per step."""
    length = point.acceptance.length if point.acceptance else None
    rate = point.acceptance.rate if point.acceptance else None
    per_stream, plain_rate = _per_stream(point), _per_stream(plain) if plain else None
    speedup = per_stream / plain_rate if per_stream is not None and plain_rate else None
    made, share = _made(point)
    if share < 1:
        model_break_even = None  # Of steps that all draft.
    steps = per_stream / made if per_stream is not None and made else None
    cost = plain_rate / steps if plain_rate and steps else None
    return MtpEffect(
        speedup=speedup,
        length=length,
        rate=rate,
        break_even=cost,
        model_break_even=model_break_even,
        steps_s=steps,
        plain_steps_s=plain_rate,
        sentence=_sentence(speedup, made, cost, model_break_even, _step(drafts, share)),
    )


EVERY_STEP = 0.98
"""Share of steps with drafts from which on all are said to have them: the first token of an answer is no step."""


def _made(point: DecodePoint) -> tuple[float | None, float]:
    """Tokens of a step, and the share of steps that draft."""
    accepted = point.acceptance
    if accepted is None or accepted.length is None or accepted.per_step is None or accepted.length <= 1:
        return (accepted.length if accepted else None), 1.0
    share = (accepted.per_step - 1) / (accepted.length - 1)
    return (accepted.per_step, share) if share < EVERY_STEP else (accepted.length, 1.0)


def _step(drafts: int, share: float) -> str:
    return f"a step with {drafts} drafts" if share == 1 else f"a step ({100 * share:.0f} % of them with drafts)"


def _per_stream(point: DecodePoint) -> float | None:
    """Tokens per second of one stream, from the aggregate, so that both sides are counted alike."""
    return point.decode_tok_s / point.concurrency if point.decode_tok_s is not None else None


def _sentence(speedup: float | None, length: float | None, cost: float | None, model: float | None, step: str) -> str:
    if length is None:
        return "acceptance was not measured, so the effect of the drafts is not known"
    if speedup is None or cost is None:
        need = f"; bandwidth alone asks for {model:.2f} to break even" if model else ""
        return f"{length:.2f} tokens a step; no cell without drafts was measured to compare with{need}"
    why = f"{length:.2f} tokens a step against a break-even of {cost:.2f}"
    return f"{_verb(speedup)}: {why}; {_reason(speedup, length, cost, model, step)}"


def _verb(speedup: float) -> str:
    if abs(speedup - 1) <= NOISE:
        return f"neither helps nor hurts ({speedup:.2f}x)"
    return f"helps ({speedup:.2f}x)" if speedup > 1 else f"hurts ({speedup:.2f}x)"


def _reason(speedup: float, length: float, cost: float, model: float | None, step: str) -> str:
    """Which side of length > cost decides: too few tokens accepted, or steps that cost more than their bytes."""
    if speedup > 1 + NOISE:
        return f"{step} costs {cost:.2f} plain steps and yields more than that"
    if model is None:
        return f"{step} costs {cost:.2f} plain steps and yields no more"
    if length <= model:
        return f"too few drafts are accepted: even at the speed of memory {model:.2f} tokens a step are needed"
    return f"the drafts are accepted, but a step costs {cost:.2f} plain steps where its bytes explain {model:.2f}"
