"""The longest time a sweep can take: every phase of every launch at its deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeper.core.identity import cell_id
from sweeper.core.racing import Race
from sweeper.core.values import Cell, Policy, Workload
from sweeper.core.vllm_values import normal

AROUND_S = 60.0
"""Per server launch, for what has limits of its own instead of a deadline: creating it, the last lines of a dying
server (6 s), SIGKILL and children after the grace (20 s), the end of a container's log (15 s), the diagnosis."""
BUILD_S = 3600.0
"""Longest time for building one canary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBound:
    """An upper bound, not an estimate: a healthy launch takes a fraction of its deadlines. Seconds."""

    total_s: float
    launch_s: float
    """One launch with every phase at its deadline."""
    launches: int
    """Screening launches and confirming ones."""
    canary_s: float
    """The same of one canary launch."""
    canaries: int
    """Canary launches of the preflight; 0 without one."""
    build_s: float
    """For building canaries."""
    pull_s: float
    """Once per image."""


def launch_bound_s(policy: Policy, workloads: Sequence[Workload], *, on_gpu: bool) -> float:
    """Deadlines of one launch added up: sanity covers the prompts and the fixed texts, canary the golden vectors of the
    checkpoint, measuring is per workload and concurrency.
    """
    limits = policy.deadlines
    points = sum(len(workload.concurrency) for workload in workloads)
    return _around_s(policy, on_gpu=on_gpu) + 2 * limits.sanity_s + limits.canary_s + limits.measure_s * points


def canary_bound_s(policy: Policy, *, on_gpu: bool) -> float:
    """The same for one launch of the preflight."""
    return _around_s(policy, on_gpu=on_gpu) + policy.deadlines.canary_s


def _around_s(policy: Policy, *, on_gpu: bool) -> float:
    limits = policy.deadlines
    return limits.ready_s + limits.first_answer_s + limits.stop_s + (limits.gpu_free_s if on_gpu else 0.0) + AROUND_S


def time_bound(cells: Sequence[Cell], workloads: Sequence[Workload], policy: Policy, *, on_gpu: bool) -> TimeBound:
    """`cells`: those that run. Repeats as far as the race for the best may take them (`core.racing`)."""
    launches = most_launches(len(cells), policy)
    launch_s = launch_bound_s(policy, workloads, on_gpu=on_gpu)
    tried = [cell for cell in cells if not cell.url] if policy.preflight or policy.canary else []
    canaries = _canary_launches(tried)
    canary_s = canary_bound_s(policy, on_gpu=on_gpu)
    build_s = 0.0 if policy.canary else BUILD_S * _canary_builds(tried)
    images = {cell.image for cell in cells if cell.image and (cell.python is None or cell.launcher == "docker")}
    pull_s = policy.deadlines.pull_s * len(images)
    return TimeBound(
        total_s=launch_s * launches + canary_s * canaries + build_s + pull_s,
        launch_s=launch_s,
        launches=launches,
        canary_s=canary_s,
        canaries=canaries,
        build_s=build_s,
        pull_s=pull_s,
    )


def most_launches(cells: int, policy: Policy) -> int:
    """Launches of a sweep over so many cells, at most; the scheduler keeps to it."""
    if policy.launches < 2 and not policy.confirm_top:
        return cells
    reference = "given" if policy.reference else None
    return Race(launches=policy.launches, confirm_top=policy.confirm_top, reference=reference).limit(cells)


def _canary_launches(cells: Sequence[Cell]) -> int:
    """One per configuration, and for vLLM one of `auto` per layout, whose support matrix may spare the others."""
    wanted = set()
    for cell in cells:
        small = replace(cell, name=None, moe_backend=normal(cell.moe_backend))
        wanted.add(cell_id(small))
        if cell.engine == "vllm":
            wanted.add(cell_id(replace(small, moe_backend="auto")))
    return len(wanted)


def _canary_builds(cells: Sequence[Cell]) -> int:
    """One per model, number format, depth and kind of speculation."""
    return len(
        {
            (cell.model, cell.quantization, cell.quantization_flag, cell.parallelism.pp, cell.speculative is None)
            for cell in cells
        }
    )
