"""Repetitions of the energy presets: one wave, the difference of two, the sum of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sweeper.core import energyruns
from sweeper.core.points import Energy
from sweeper.core.presets import RunFigure
from sweeper.core.windows import StreamTrace, trace_of
from sweeper.probes.load.pool import RunResult


def wave_figure(
    phase: str, batch: int, osl: int, runs: Sequence[RunResult], energy: Energy, waves: int = 1
) -> RunFigure:
    traces = [trace_of(record) for run in runs for record in run.records]
    ends = [t.stamps[-1] for t in traces if t.stamps]
    seconds = (max(ends) - min(t.sent_s for t in traces)) / waves if ends else 0.0
    tokens = sum((t.prompt_tokens or 0) if phase == "prefill" else t.tokens for t in traces) / waves
    joules = energy.joules / waves if energy.joules is not None else None
    return RunFigure(
        phase=phase,
        batch=batch,
        osl=osl,
        seconds=seconds,
        tokens=tokens,
        calls=waves,
        joules=joules,
        mean_w=energy.mean_w,
        power_share=energy.power_share,
        why=energy.why,
    )


def decode_phase(first: RunFigure, full: RunFigure, tokens: int) -> RunFigure:
    """The decode phase: full waves minus prefill-only waves."""
    seconds = full.seconds - first.seconds
    joules = full.joules - first.joules if full.joules is not None and first.joules is not None else None
    watts = joules / seconds if joules is not None and seconds > 0 else None
    limit = full.mean_w / full.power_share if full.mean_w and full.power_share else None
    return replace(
        full,
        phase="decode",
        seconds=seconds,
        tokens=float(tokens),
        joules=joules,
        mean_w=watts,
        power_share=watts / limit if watts is not None and limit else None,
    )


def total_energy(energies: Sequence[Energy], traces: Sequence[StreamTrace]) -> Energy:
    """All repetitions as one reading: joules added, watts averaged."""
    return energyruns.total_energy(energies, sum(trace.tokens for trace in traces))
