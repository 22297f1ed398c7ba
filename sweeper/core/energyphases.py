"""Energy by phase and over repeated runs, and the finding that a cell leaves its GPUs idle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.core.energy import integrate
from sweeper.core.gputrace import GpuTrace
from sweeper.core.verdicts import Finding

STABLE_CV = 0.03
"""Gate of the published end-to-end energy protocol: stable when CV < 3 %."""
LOW_POWER_SHARE = 0.20
LOW_SPEED_RATIO = 0.33


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnergy:
    """Energy of all spans of one phase, e.g. prefill, over the cell's GPUs. `why` says what made it unknown."""

    phase: str
    calls: int
    seconds: float
    joules: float | None
    joules_per_call: float | None
    mean_w: float | None
    power_share: float | None
    why: str | None = None


def phase_energy(trace: GpuTrace, spans: Sequence[tuple[str, float, float]]) -> tuple[PhaseEnergy, ...]:
    """Per phase: integrated power inside its spans (name, from, to; the trace's clock).

    Counters step every 0.1 s or so, too coarse for one prefill, hence power. A span needs three readings on every GPU.
    """
    names = tuple(dict.fromkeys(name for name, _, _ in spans))
    return tuple(_phase(trace, name, [(a, b) for n, a, b in spans if n == name]) for name in names)


def _phase(trace: GpuTrace, name: str, spans: Sequence[tuple[float, float]]) -> PhaseEnergy:
    seconds, why, joules = sum(b - a for a, b in spans), trace.why, 0.0
    if any(g.power_source == "average" for g in trace.gpus):
        why = why or "power readings are a one-second mean, too slow for phases"
    for gpu in range(len(trace.gpus)):
        power = [(s.t_s, s.power_w) for s in trace.samples if s.gpu == gpu and s.power_w is not None]
        for a, b in spans:
            if sum(a <= t <= b for t, _ in power) < 3:
                why = why or f"fewer than 3 power readings in a span of {b - a:.3f} s; sample faster"
            part, gap = integrate(power, (a, b))
            why = why or (f"no sample for {gap:.1f} s" if gap else None)
            joules += part or 0.0
    if why or not trace.gpus:
        return PhaseEnergy(
            phase=name,
            calls=len(spans),
            seconds=seconds,
            joules=None,
            joules_per_call=None,
            mean_w=None,
            power_share=None,
            why=why or "no GPU belongs to this cell",
        )
    limits = [g.power_limit_w for g in trace.gpus if g.power_limit_w]
    mean_w = joules / seconds
    return PhaseEnergy(
        phase=name,
        calls=len(spans),
        seconds=seconds,
        joules=joules,
        joules_per_call=joules / len(spans),
        mean_w=mean_w,
        power_share=mean_w / sum(limits) if len(limits) == len(trace.gpus) else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsEnergy:
    """Joules per 1,000 generated tokens over repeated runs; `stable` is the CV gate, None with fewer than two runs."""

    runs: int
    mean: float
    sd: float | None
    cv: float | None
    stable: bool | None


def energy_over_runs(joules_per_1k: Sequence[float], *, gate: float = STABLE_CV) -> RunsEnergy | None:
    """Mean, sample SD and gate over runs; None without a run."""
    n = len(joules_per_1k)
    if n == 0:
        return None
    mean = sum(joules_per_1k) / n
    if n == 1:
        return RunsEnergy(runs=1, mean=mean, sd=None, cv=None, stable=None)
    sd = math.sqrt(sum((x - mean) ** 2 for x in joules_per_1k) / (n - 1))
    cv = sd / mean if mean else None
    return RunsEnergy(runs=n, mean=mean, sd=sd, cv=cv, stable=None if cv is None else cv < gate)


def underutilised(*, power_share: float | None, tok_s: float | None, reference_tok_s: float | None) -> Finding | None:
    """Low power together with low throughput: the kernels leave the GPU idle, there is not more work.

    Raised under 20 % of the power limit at less than a third of the reference cell's speed.
    """
    if power_share is None or tok_s is None or not reference_tok_s:
        return None
    ratio = tok_s / reference_tok_s
    if power_share >= LOW_POWER_SHARE or ratio >= LOW_SPEED_RATIO:
        return None
    return Finding(
        id="underutilised",
        text=f"underutilised: {power_share:.0%} of the power limit at {ratio:.2f}x the reference speed",
    )
