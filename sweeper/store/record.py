"""A run read back: cells in order, and per trial its observations and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.core import codec
from sweeper.core.canaries import CanaryLaunch
from sweeper.core.observations import KINDS, Observation
from sweeper.core.values import Cell
from sweeper.core.verdicts import Outcome, Verdict
from sweeper.store.eventlog import read_events, torn_lines
from sweeper.store.rundir import RunDir


@dataclass(slots=True, kw_only=True)
class TrialRecord:
    """One launch of one cell. `verdict` is None while it runs, or when sweeper died in it."""

    trial: str
    cell_id: str
    attempt: int
    observed: list[Observation] = field(default_factory=list)
    launch: dict[str, Any] | None = None
    verdict: Verdict | None = None
    started_utc: str = ""
    mono_started_s: float = 0.0
    phase: str = "launch"


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """Everything `report`, `status`, `show`, `claims` and `compare` need."""

    run: RunDir
    facts: Mapping[str, Any]
    cells: dict[str, Cell] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    excluded: list[dict[str, Any]] = field(default_factory=list)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    canaries: list[CanaryLaunch] = field(default_factory=list)
    """Launches of the preflight, in order."""
    reference: str | None = None
    finished: bool = False
    torn: int = 0

    def of_cell(self, cell_id: str) -> list[TrialRecord]:
        """Trials of a cell, in the order in which they were started."""
        return [trial for trial in self.trials.values() if trial.cell_id == cell_id]

    def settled(self, cell_id: str) -> list[TrialRecord]:
        """Trials that need no repeating: PASS, FAIL or SKIP."""
        good = (Outcome.PASS, Outcome.FAIL, Outcome.SKIP)
        return [trial for trial in self.of_cell(cell_id) if trial.verdict and trial.verdict.outcome in good]


def read(run: RunDir) -> RunRecord:
    """Raises RecordUnusable when the folder is no run, or was written by a newer version."""
    record = RunRecord(run=run, facts=run.run_json())
    for event in read_events(run.events):
        _apply(record, event.type, event.trial, event.data, event.utc, event.mono_s)
    record.torn = torn_lines(run.events)
    return record


def _apply(record: RunRecord, kind: str, trial: str | None, data: dict[str, Any], utc: str, mono_s: float) -> None:
    if kind == "planned":
        for item in data["cells"]:
            record.cells[item["id"]] = codec.load(Cell, item["cell"])
            record.warnings[item["id"]] = list(item.get("warnings", ()))
        record.excluded = list(data["excluded"])
        record.reference = data.get("reference") or record.reference
    elif kind == "canary_launched":
        record.canaries.append(codec.load(CanaryLaunch, data))
    elif kind == "note":
        record.notes.append(str(data["text"]))
    elif kind == "run_finished":
        record.finished = True
    elif kind == "run_started":
        record.finished = False
    elif kind == "trial_started" and trial:
        record.trials[trial] = TrialRecord(
            trial=trial, cell_id=data["cell_id"], attempt=data["attempt"], started_utc=utc, mono_started_s=mono_s
        )
    elif trial and trial in record.trials:
        _apply_trial(record.trials[trial], kind, data)


def _apply_trial(trial: TrialRecord, kind: str, data: dict[str, Any]) -> None:
    if kind in KINDS:
        trial.observed.append(codec.load(KINDS[kind], data))
    elif kind == "launched":
        trial.launch = data
    elif kind == "phase":
        trial.phase = str(data["name"])
    elif kind == "trial_finished":
        trial.verdict = codec.load(Verdict, data["verdict"])
