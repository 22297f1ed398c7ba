"""Energy over repeated windows, and the finding that a cell leaves its GPUs idle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeper.core.points import Energy
from sweeper.core.verdicts import Finding

STABLE_CV = 0.03
"""Gate of the published end-to-end energy protocol: stable when CV < 3 %."""
WORST_FIRST = ("invalid", "hardware slowdown", "thermal", "power cap", None, "fine")
LOW_POWER_SHARE = 0.20
LOW_SPEED_RATIO = 0.33


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


def total_energy(energies: Sequence[Energy], tokens: float) -> Energy:
    """All repetitions as one reading: joules added, watts averaged. `tokens`: output tokens of all of them.

    The first one without a figure stands for all, with its reason.
    """
    if not energies:
        return Energy(joules=None, joules_per_1k_tokens=None, mean_w=None, power_share=None, why="no run")
    joules = [e.joules for e in energies if e.joules is not None]
    if len(joules) < len(energies):
        return next(e for e in energies if e.joules is None)
    watts = [e.mean_w for e in energies if e.mean_w is not None]
    shares = [e.power_share for e in energies if e.power_share is not None]
    return replace(
        energies[-1],
        joules=sum(joules),
        joules_per_1k_tokens=1000 * sum(joules) / tokens if tokens else None,
        mean_w=sum(watts) / len(watts) if watts else None,
        power_share=sum(shares) / len(shares) if shares else None,
        state=next((state for state in WORST_FIRST if any(e.state == state for e in energies)), None),
        why="; ".join(dict.fromkeys(e.why for e in energies if e.why)) or None,
    )


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
