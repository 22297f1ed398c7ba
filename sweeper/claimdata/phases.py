"""Energy of the two phases, from the repetitions that the energy-phases preset stores beside its request records."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.core import codec
from sweeper.core.claims import Reading
from sweeper.core.errors import RecordUnusable
from sweeper.core.presets import RunFigure
from sweeper.core.stats import describe

Key = tuple[str, str]
PRESET = "energy-phases"


def phase_readings(folders: Iterable[Path], batch: int) -> dict[Key, Reading]:
    """J per prefill call, J per decode phase (32 tokens a stream) and its rate; one value per launch's folder."""
    values: dict[Key, list[float]] = {}
    for folder in folders:
        for key, value in _of_launch(_stored(folder / "requests.jsonl.gz"), batch).items():
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


def _stored(file: Path) -> list[RunFigure]:
    """Repetitions in a trial's request records; none where the file is missing or cut off."""
    found: list[RunFigure] = []
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                row: Mapping[str, Any] = json.loads(line)
                if "run" in row:
                    found.append(codec.load(RunFigure, row["run"]))
    except (OSError, EOFError, ValueError, zlib.error, RecordUnusable):
        return found
    return found
