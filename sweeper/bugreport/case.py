"""Everything a report is made from, read out of a run's record. Nothing is redacted yet."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.core import codec
from sweeper.core.errors import UsageError
from sweeper.core.observations import CanaryChecked
from sweeper.core.values import Cell
from sweeper.core.verdicts import Outcome, Verdict
from sweeper.report.columns import number
from sweeper.report.model import effective, rate, requested
from sweeper.store.record import RunRecord, TrialRecord

LOG_LIMIT = 48 << 20
"""Bytes of a log that go in whole; of a longer one the first and last 16 MiB."""
_EDGE = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """One other cell of the run."""

    label: str
    outcome: str
    phase: str
    cause: str
    detail: str
    ran: str
    """What the log proves to have run: backend, version."""
    is_this: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One failed trial, with its surroundings."""

    trial: str
    cell: Cell
    verdict: Verdict
    started_utc: str
    sweeper: str
    host: Mapping[str, Any]
    launch: Mapping[str, Any]
    """Empty where the server never was created, or only the canary was."""
    on_canary: bool
    """The failure was seen on the canary, before the real weights were loaded."""
    log: str
    log_cut: bool
    requested: Mapping[str, str]
    effective: Mapping[str, str]
    gpus: tuple[str, ...]
    """Names of the boards."""
    rows: tuple[CellRow, ...]
    versions: Mapping[str, str]
    model_config: Mapping[str, Any] | None
    canary_made: Mapping[str, Any] | None
    """The model folder's `sweeper_canary.json`: the model was a canary itself."""

    @property
    def image(self) -> str | None:
        return self.launch.get("image") or self.cell.image

    @property
    def image_digest(self) -> str | None:
        return self.launch.get("image_digest")


def gather(record: RunRecord, trial: TrialRecord, versions: Mapping[str, str]) -> Case:
    """Raises UsageError for a trial that has nothing to report."""
    verdict = trial.verdict
    if verdict is None:
        raise UsageError(f"trial {trial.trial} has no verdict yet", hint="Its state: sweeper status")
    if verdict.outcome is Outcome.PASS and not verdict.findings:
        raise UsageError(f"trial {trial.trial} passed without findings: nothing to report", hint=_failed_hint(record))
    cell = record.cells[trial.cell_id]
    log, is_cut = _log(record.run.path, trial, verdict)
    host = record.facts.get("host") or {}
    return Case(
        trial=trial.trial,
        cell=cell,
        verdict=verdict,
        started_utc=trial.started_utc,
        sweeper=str(record.facts.get("sweeper") or ""),
        host=host,
        launch=trial.launch or {},
        on_canary=_failed_on_canary(trial),
        log=log,
        log_cut=is_cut,
        requested=requested(cell),
        effective=effective(verdict),
        gpus=gpu_names(host, (trial.launch or {}).get("gpus") or ()),
        rows=tuple(_rows(record, trial.cell_id)),
        versions=versions,
        model_config=_model_config(cell.model),
        canary_made=_json(Path(cell.model) / "sweeper_canary.json"),
    )


def _failed_hint(record: RunRecord) -> str:
    failed = [t.trial for t in record.trials.values() if t.verdict and t.verdict.outcome is Outcome.FAIL]
    return f"Trials that failed: {', '.join(failed[:8])}" if failed else "No trial of this run failed."


def _failed_on_canary(trial: TrialRecord) -> bool:
    return any(
        isinstance(item, CanaryChecked)
        and item.where == "preflight"
        and item.verdict in ("failed", "garbage", "degraded")
        for item in trial.observed
    )


def _log(run: Path, trial: TrialRecord, verdict: Verdict) -> tuple[str, bool]:
    names = [verdict.cause.log] if verdict.cause and verdict.cause.log else []
    names += [f"trials/{trial.trial}/server.log", f"trials/{trial.trial}/canary.log"]
    for name in names:
        path = run / name
        # The name comes from the record: it must not lead out of the run folder.
        if path.is_file() and path.resolve().is_relative_to(run.resolve()):
            return _read_log(path)
    return "", False


def _read_log(path: Path) -> tuple[str, bool]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= LOG_LIMIT:
            return file.read().decode("utf-8", "replace"), False
        first = file.read(_EDGE)
        file.seek(-_EDGE, 2)
        last = file.read()
    gap = f"\n[{size - 2 * _EDGE} bytes are left out here]\n".encode()
    return (first + gap + last).decode("utf-8", "replace"), True


def gpu_names(host: Mapping[str, Any], used: Sequence[str]) -> tuple[str, ...]:
    """Names of the boards `used` (indices or UUIDs); of all where none of them is known."""
    boards = host.get("gpus") or []
    chosen = [b for b in boards if b.get("uuid") in used or str(b.get("index")) in used] or boards
    return tuple(str(board.get("name") or "unknown GPU") for board in chosen)


def _rows(record: RunRecord, this: str) -> list[CellRow]:
    rows = []
    for cell_id, cell in record.cells.items():
        verdicts = [t.verdict for t in record.of_cell(cell_id) if t.verdict]
        if verdicts:
            rows.append(_row(cell, verdicts[-1], is_this=cell_id == this))
    for item in record.excluded:
        rows.append(
            CellRow(
                label=str(item["label"]),
                outcome="SKIP",
                phase="plan",
                cause="excluded",
                detail="; ".join(item["reasons"]),
                ran="-",
            )
        )
    return rows


def _row(cell: Cell, verdict: Verdict, *, is_this: bool) -> CellRow:
    ran = effective(verdict)
    rates = [f"{number(rate(p, 'decode'))} tok/s at {p.concurrency}" for p in verdict.sound if rate(p, "decode")]
    return CellRow(
        label=cell.label(),
        outcome=verdict.outcome.value,
        phase=verdict.phase.value,
        cause=verdict.cause.id if verdict.cause else "-",
        detail=", ".join(rates) or (verdict.cause.means if verdict.cause else ""),
        ran=" ".join(ran[key] for key in ("MoE backend", "version") if key in ran) or "-",
        is_this=is_this,
    )


def _model_config(model: str) -> Mapping[str, Any] | None:
    """The model's config.json: from its folder, else from the included catalogue."""
    from sweeper import catalogue

    found = _json(Path(model).expanduser() / "config.json")
    if found is not None:
        return found
    name = catalogue.find(model)
    return catalogue.config(name) if name else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def zipped(text: str) -> bytes:
    """gzip without a time stamp: the same text gives the same bytes."""
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def judged(verdict: Verdict) -> dict[str, Any]:
    """What a reproduction is compared by: the manifest's `expected`, and what was seen here."""
    return {
        "outcome": verdict.outcome.value,
        "phase": verdict.phase.value,
        "cause": verdict.cause.id if verdict.cause else None,
        "findings": [finding.id for finding in verdict.findings],
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON-ready data."""
    return codec.dump(verdict)
