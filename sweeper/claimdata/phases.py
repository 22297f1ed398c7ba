"""Energy of the two phases, from the repetitions that the energy-phases preset stores beside its request records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sweeper.core.claims import Reading
from sweeper.core.presets import RunFigure, runs_of
from sweeper.core.stats import describe
from sweeper.store.rundir import read_requests

Key = tuple[str, str]
PRESET = "energy-phases"


def phase_readings(folders: Iterable[Path], batch: int) -> dict[Key, Reading]:
    """J per prefill call, J per decode phase (32 tokens a stream) and its rate; one value per launch's folder."""
    values: dict[Key, list[float]] = {}
    for folder in folders:
        for key, value in _of_launch(runs_of(read_requests(folder / "requests.jsonl.gz")), batch).items():
            values.setdefault(key, []).append(value)
    return {key: _reading(found) for key, found in values.items()}


def _reading(values: Sequence[float]) -> Reading:
    stats = describe(values)
    return Reading(value=stats.mean, interval=stats.interval, launches=stats.n, best=max(values))


def _of_launch(runs: Iterable[RunFigure], batch: int) -> dict[Key, float]:
    out: dict[Key, float] = {}
    for run in runs:
        if run.batch != batch:
            continue
        if run.phase == "prefill" and run.joules is not None:
            out["energy", "J/call"] = run.joules
        if run.phase == "decode":
            if run.joules is not None and run.osl == 32:
                out["energy", "J/32 tok"] = run.joules
            if run.seconds > 0:
                out["output", "tok/s"] = run.tokens / run.seconds
    return out
