"""Measured log-probabilities against golden ones: right, degraded or garbage. Pure; natural logarithms throughout.

Kernels differ in the last bits by design, so nothing is compared token text by token text. Three figures over all
scored positions decide: the shift of the mean NLL, the mean KL divergence over the golden top-k, and the share of
positions whose best token is the golden one. The worst group (prefill, decode, each batch size) counts, not the mean of
all: a kernel that is wrong only above batch 4 must not hide behind the ones that are right.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import stdev
from typing import Literal

from sweeper.core.numerics_routing import Expert, WrongExpert, wrong_expert

Top = tuple[tuple[int, float], ...]
"""(token id, log-probability), best first."""

Grade = Literal["right", "degraded", "garbage", "unchecked"]

GARBAGE_FACTOR = 8.0
"""So many tolerances off, an answer is no longer a worse version of the right one."""

FLOOR_LOGPROB = -20.0
"""Lowest log-probability that is told from zero."""

MIN_GENERATIONS = 74
"""1 - 0.96 ** 74 = 0.951: enough to see a failure that hits 4 % of generations with 95 % probability."""

TYPICAL = 0.95
MIN_TYPICAL = 300
"""Positions below which a trimmed mean says little."""

TRAINED_KL_TYPICAL: Mapping[str, float] = {
    "bf16": 2e-5, "nvfp4-w4a16": 2e-5, "int4": 2e-5, "fp8": 4e-5, "fp8-block": 4e-5, "nvfp4": 1.3e-4, "mxfp4": 1.45e-3,
}  # fmt: skip
"""Bounds of `kl_typical` for trained weights (the speaking canary), set from benchmarks/check_faults with
the seeds 0 to 59: healthy ones reach 6e-6 (bf16), 1.6e-5 (fp8), 9.7e-5 (nvfp4 with e2m1 activations under calibrated
input scales); the mildest faults seen 2.7e-5, 5.5e-5, 1.8e-4. mxfp4 was not measured. Drawn weights have no such bound:
their routing flips too easily."""
UNTOLD_KL_TYPICAL: Mapping[str, float] = {**TRAINED_KL_TYPICAL, "nvfp4": 1.45e-3}
"""For golden files that state none: they come with checkpoints whose input scales were not calibrated."""

FEW, FEW_ERRORS = 64, 2.0
"""Places below which a mean is held against its tolerance only by what exceeds two standard errors. The golden files of
large geometries hold 16 decoded places."""
FEW_FOR_SHIFT = 320
"""The same for the NLL: a continuation holds the tokens that the reference finds likeliest, so rounding only lowers
them, and a few flipped experts among 190 places raise the mean by more than a tolerance. The KL has no such lean."""

PLAUSIBLE = 3.0
"""A token this many nats below the best (one twentieth of its probability) is within reach of rounding in 4 bits."""

MARGIN = 0.1
"""Positions at which golden's two best tokens are closer than this many nats have no best token to agree on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a healthy kernel of this quantisation family may be off by."""

    nll_shift: float
    kl_topk: float
    argmax_agreement: float
    kl_typical: float | None = None
    """Bound of `Figures.kl_typical`; None where healthy kernels of the checkpoint were not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One token position: golden and measured log-probability of the same token, and both top-k lists."""

    golden: float
    measured: float | None
    """None: the server did not say. nan: it said NaN."""
    golden_top: Top = ()
    measured_top: Top = ()
    experts: tuple[Expert, ...] = ()
    """(layer, number) of those that the reference routed the token to; empty where that is not known."""
    place: Hashable = None
    """Answers at one place count as one; None: a place of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of one group of positions; None where nothing could be compared."""

    positions: int
    nll_golden: float | None
    nll_measured: float | None
    kl_topk: float | None
    argmax_agreement: float | None
    nan: bool
    kl_typical: float | None = None
    """Mean KL without the 5 % largest: routing flips, which any rounding causes, are left out; what moves every token
    a little is not."""

    wrong_expert: WrongExpert | None = None
    """The expert whose tokens are off where the others are not."""
    shift_error: float = 0.0
    kl_error: float = 0.0
    """Standard errors over the places."""

    @property
    def shift(self) -> float | None:
        """Measured minus golden mean NLL, in nats per token."""
        if self.nll_golden is None or self.nll_measured is None:
            return None
        return self.nll_measured - self.nll_golden


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One free generation: token ids as served, and those of the golden continuation of the same prompt."""

    ids: tuple[int, ...]
    golden_ids: tuple[int, ...] = ()
    text: str = ""
    problem: str | None = None
    """What `core.sanity` says of the text; None where text of this model means nothing."""
    nan: bool = False
    own_way: bool = False
    """It left golden's path by a token that golden holds likely: what follows may loop without anything being wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOnly:
    """The verdict over W4A4 weights if the server keeps activations in 16 bit (Marlin), as only its log tells."""

    verdict: Grade
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The verdict of `sweeper check`, with every figure behind it."""

    verdict: Grade
    groups: Mapping[str, Figures]
    degenerate: int
    generations: int
    nan: bool
    reasons: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    worst: str | None = None
    weight_only: WeightOnly | None = None
    """Name of the group furthest from golden."""
    extra: Mapping[str, float] = field(default_factory=dict)


def figures(positions: Iterable[Position], *, typical: bool = False) -> Figures:
    """Means over positions. A NaN is not averaged: it is reported and fails by itself.

    `typical`: give `kl_typical` as well. For prompts only, whose text is natural: a continuation visits few contexts
    many times, so that one of them can move the trimmed mean.
    """
    places: dict[Hashable, list[_Compared]] = {}
    nan = False
    for number, position in enumerate(positions):
        if position.measured is None:
            continue
        if math.isnan(position.measured) or any(math.isnan(value) for _, value in position.measured_top):
            nan = True
            continue
        places.setdefault(("", number) if position.place is None else position.place, []).append(_compared(position))
    once = [_merged(found) for found in places.values()]
    shifts = [item.measured - item.golden for item in once]
    listed = [item for item in once if item.kl is not None]
    divergences = [item.kl for item in listed if item.kl is not None]
    agreed = [item.agreed for item in once if item.agreed is not None]
    return Figures(
        positions=len(once),
        nll_golden=-_mean([item.golden for item in once]) if once else None,
        nll_measured=-_mean([item.measured for item in once]) if once else None,
        kl_topk=_mean(divergences) if divergences else None,
        argmax_agreement=_mean(agreed) if agreed else None,
        nan=nan,
        kl_typical=_mean(sorted(divergences)[: math.ceil(TYPICAL * len(divergences))])
        if typical and divergences
        else None,
        wrong_expert=wrong_expert(divergences, [item.experts for item in listed]),
        shift_error=_error(shifts),
        kl_error=_error(divergences),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """One answer at one place. `agreed`: share of answers whose best token is golden's; None at a near-tie."""

    golden: float
    measured: float
    kl: float | None
    agreed: float | None
    experts: tuple[Expert, ...]


def _compared(position: Position) -> _Compared:
    both = bool(position.golden_top and position.measured_top)
    decided = both and _decided(position.golden_top)
    return _Compared(
        golden=position.golden,
        measured=max(position.measured or 0.0, FLOOR_LOGPROB),
        kl=kl_topk(position.golden_top, position.measured_top) if both else None,
        agreed=float(position.golden_top[0][0] == position.measured_top[0][0]) if decided else None,
        experts=position.experts,
    )


def _merged(answers: Sequence[_Compared]) -> _Compared:
    """Several answers at one place count as one: where a server leaves golden's path, all its repetitions do."""
    kl = [item.kl for item in answers if item.kl is not None]
    agreed = [item.agreed for item in answers if item.agreed is not None]
    return _Compared(
        golden=answers[0].golden,
        measured=_mean([item.measured for item in answers]),
        kl=_mean(kl) if kl else None,
        agreed=_mean(agreed) if agreed else None,
        experts=answers[0].experts,
    )


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def kl_topk(golden: Top, measured: Top) -> float:
    """KL(golden || measured) in nats over golden's candidates, both renormalised over them.

    A candidate that the server left out of its list counts as the most it can have there: flat distributions exchange
    the ends of their lists at the smallest rounding.
    """
    seen = dict(measured)
    unlisted = _unlisted(list(seen.values()), len(golden))
    p = _softmax([value for _, value in golden])
    q = _softmax([max(seen.get(token, unlisted), FLOOR_LOGPROB) for token, _ in golden])
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def _unlisted(listed: list[float], top_k: int) -> float:
    """At most the last of the `top_k` best (the chosen token may be listed beside them), and what the list leaves."""
    last = sorted(listed, reverse=True)[: max(top_k, 1)][-1]
    rest = 1.0 - math.fsum(math.exp(value) for value in listed)
    return min(last, math.log(rest) if rest > math.exp(FLOOR_LOGPROB) else FLOOR_LOGPROB)


def degenerate(generation: Generation, *, tail: int = 16) -> bool:
    """Whether a generation collapsed: NaN, broken text, or a tail of one token that golden's does not have."""
    if generation.nan:
        return True
    if generation.problem and not generation.own_way:
        return True
    if generation.own_way or len(generation.ids) < tail:
        return False
    return _variety(generation.ids[-tail:]) <= 2 < _variety(generation.golden_ids[-tail:] or range(tail))


def went_own_way(ids: Sequence[int], golden_ids: Sequence[int], golden_top: Sequence[Top]) -> bool:
    """Whether the first token that differs from golden's is at most `PLAUSIBLE` nats below golden's best."""
    for token, wanted, top in zip(ids, golden_ids, golden_top, strict=False):
        if token != wanted:
            return dict(top).get(token, -math.inf) >= top[0][1] - PLAUSIBLE if top else False
    return False


def grade(
    groups: Mapping[str, Figures],
    generations: Sequence[Generation],
    limits: Limits | None,
    *,
    unchecked: Sequence[str] = (),
    faults: Sequence[str] = (),
) -> Check:
    """The worst group decides. Nothing compared and nothing generated is `unchecked`, never right.

    `faults`: requests that broke on the server's side, in words; with any of them nothing is right.
    """
    reasons: list[str] = list(faults)
    verdict: Grade = "degraded" if faults else "right"
    scored = {name: group for name, group in groups.items() if group.positions or group.nan}
    nan = any(group.nan for group in scored.values()) or any(item.nan for item in generations)
    if limits:
        for name, group in scored.items():
            found, why = _grade_group(name, group, limits)
            verdict = worse(verdict, found)
            reasons += why
    collapsed = sum(degenerate(item) for item in generations)
    if collapsed:
        share = collapsed / len(generations)
        reasons.append(f"{collapsed} of {len(generations)} generations degenerate ({share:.1%})")
        verdict = worse(verdict, "garbage" if share > 0.5 else "degraded")
    if nan:
        reasons.append("NaN in the log-probabilities")
        verdict = "garbage"
    if not (scored and limits) and not generations and not faults:
        verdict = "unchecked"
    return Check(
        verdict=verdict,
        groups=groups,
        degenerate=collapsed,
        generations=len(generations),
        nan=nan,
        reasons=tuple(reasons),
        unchecked=tuple(unchecked),
        worst=max(scored, key=lambda name: abs(scored[name].shift or 0.0), default=None),
    )


def worse(a: Grade, b: Grade) -> Grade:
    """The worse of two grades."""
    order: tuple[Grade, ...] = ("right", "degraded", "garbage")
    return max(a, b, key=lambda item: order.index(item) if item in order else -1)


def _grade_group(name: str, group: Figures, limits: Limits) -> tuple[Grade, list[str]]:
    found: Grade = "right"
    why = []
    shift, kl, agreement = group.shift, group.kl_topk, group.argmax_agreement
    # Over few places one flipped expert moves a mean: there only what several places show counts.
    doubt = FEW_ERRORS if group.positions < FEW else 0.0
    lean = FEW_ERRORS * group.shift_error if group.positions < FEW_FOR_SHIFT else 0.0
    if shift is not None and abs(shift) - lean > limits.nll_shift:
        found = worse(found, "garbage" if abs(shift) > GARBAGE_FACTOR * limits.nll_shift else "degraded")
        why.append(f"{name}: NLL shift {shift:+.4f} nats, tolerance {limits.nll_shift}")
    if kl is not None and kl - doubt * group.kl_error > limits.kl_topk:
        found = worse(found, "garbage" if kl > GARBAGE_FACTOR * limits.kl_topk else "degraded")
        why.append(f"{name}: KL over top-k {kl:.4f} nats, tolerance {limits.kl_topk}")
    typical, bound = group.kl_typical, limits.kl_typical
    if typical is not None and bound is not None and group.positions >= MIN_TYPICAL and typical > bound:
        found = worse(found, "degraded")
        why.append(f"{name}: KL without the largest 5 % {typical:.2e} nats, tolerance {bound:.1e}")
    if group.wrong_expert:
        found = worse(found, "degraded")
        why.append(f"{name}: {_told(group.wrong_expert)}")
    missing = doubt * math.sqrt(agreement * (1 - agreement) / group.positions) if agreement and group.positions else 0.0
    if agreement is not None and agreement + missing < limits.argmax_agreement:
        found = worse(found, "garbage" if agreement < limits.argmax_agreement / 2 else "degraded")
        why.append(f"{name}: best token agrees at {agreement:.1%} of positions, at least {limits.argmax_agreement:.0%}")
    return found, why


def _told(found: WrongExpert) -> str:
    return (
        f"the {found.tokens} tokens routed to expert {found.expert} of layer {found.layer} are {found.ratio:.1f} times "
        f"as far off as the others (t = {found.t:.1f})"
    )


def _decided(top: Top) -> bool:
    return len(top) < 2 or top[0][1] - top[1][1] >= MARGIN


def _variety(ids: Sequence[int]) -> int:
    return len(set(ids))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
