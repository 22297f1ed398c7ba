"""The longest time a sweep can take: every phase of every launch at its deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.core.racing import Race
from sweeper.core.values import Cell, Policy, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBound:
    """An upper bound, not an estimate: a healthy launch takes a fraction of its deadlines. Seconds."""

    total_s: float
    launch_s: float
    """One launch with every phase at its deadline; with a preflight, the canary's launch before it."""
    launches: int
    """Screening launches and confirming ones."""
    pull_s: float
    """Once per image."""


def launch_bound_s(policy: Policy, workloads: Sequence[Workload], *, on_gpu: bool) -> float:
    """Deadlines of one launch added up; measuring has its deadline per workload and concurrency."""
    limits = policy.deadlines
    points = sum(len(workload.concurrency) for workload in workloads)
    around = limits.ready_s + limits.first_answer_s + limits.stop_s + (limits.gpu_free_s if on_gpu else 0.0)
    canary_s = around + limits.canary_s if policy.preflight or policy.canary else 0.0
    return canary_s + around + limits.sanity_s + limits.measure_s * points


def time_bound(cells: Sequence[Cell], workloads: Sequence[Workload], policy: Policy, *, on_gpu: bool) -> TimeBound:
    """`cells`: those that run. Repeats as far as the race for the best may take them (`core.racing`)."""
    launches = _launches(len(cells), policy)
    one = launch_bound_s(policy, workloads, on_gpu=on_gpu)
    images = {cell.image for cell in cells if cell.image and (cell.python is None or cell.launcher == "docker")}
    pull = policy.deadlines.pull_s * len(images)
    return TimeBound(total_s=one * launches + pull, launch_s=one, launches=launches, pull_s=pull)


def _launches(cells: int, policy: Policy) -> int:
    if policy.launches < 2 and not policy.confirm_top:
        return cells
    reference = "given" if policy.reference else None
    return Race(launches=policy.launches, confirm_top=policy.confirm_top, reference=reference).limit(cells)
