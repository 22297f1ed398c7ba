"""A run's points in the table layout of the publication that a preset re-runs: what `bench` prints, for every cell."""

from __future__ import annotations

from collections.abc import Mapping

from sweeper.core.observations import PointMeasured
from sweeper.core.presets import PRESETS, LoadResult, runs_of
from sweeper.core.presets_tables import render_preset_table
from sweeper.core.verdicts import Outcome
from sweeper.store.record import RunRecord, TrialRecord
from sweeper.store.rundir import read_requests

OWN_LAYOUT = ("serving-16x64x256", "context-ladder", "energy-e2e", "energy-phases")
"""The others are what a ranking shows."""


def publication_tables(record: RunRecord) -> str:
    """One table per preset that was measured, a row a launch; empty where there is none."""
    parts = []
    for preset in OWN_LAYOUT:
        results = _results(record, preset)
        if results:
            parts.append(f"{PRESETS[preset].title}\n\n{render_preset_table(preset, results)}")
    return "\n".join(parts)


def _results(record: RunRecord, preset: str) -> Mapping[str, LoadResult]:
    found: dict[str, LoadResult] = {}
    for cell_id, cell in record.cells.items():
        measured = [trial for trial in record.of_cell(cell_id) if _points(trial, preset)]
        for number, trial in enumerate(measured, 1):
            label = cell.label() + (f", launch {number}" if len(measured) > 1 else "")
            if trial.verdict and trial.verdict.outcome is not Outcome.PASS:
                label += f" ({trial.verdict.outcome.value})"
            found[label] = _result(record, trial, preset)
    return found


def _points(trial: TrialRecord, preset: str) -> list[PointMeasured]:
    return [item for item in trial.observed if isinstance(item, PointMeasured) and item.point.preset == preset]


def _result(record: RunRecord, trial: TrialRecord, preset: str) -> LoadResult:
    points = _points(trial, preset)
    names = {f"{item.workload}-c{item.point.concurrency}" for item in points}
    stored = read_requests(record.run.path / "trials" / trial.trial / "requests.jsonl.gz")
    rows = [row for row in stored if row.get("workload") in names]
    return LoadResult(
        points=[item.point for item in points], requests=[row for row in rows if "run" not in row], runs=runs_of(rows)
    )
