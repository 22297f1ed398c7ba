"""What a sweep measured by a publication's protocol, in the publication's table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from servers.scripted import ScriptedServer

from sweeper import app
from sweeper.core.identity import cell_id
from sweeper.core.observations import PointMeasured
from sweeper.core.points import DecodePoint
from sweeper.core.presets import LoadResult, preset
from sweeper.core.presets_tables import render_preset_table
from sweeper.core.values import Cell, Workload
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.probes.load.measure import measure
from sweeper.publications import publication_tables
from sweeper.store import rundir
from sweeper.store.record import RunRecord, TrialRecord

Start = Callable[..., ScriptedServer]
CELL = Cell(engine="transformers", model="m", name="FP16")


def measured(server: ScriptedServer, workload: Workload) -> LoadResult:
    return measure(server.url, None, replace(workload, warmup_s=0.0))


def recorded(tmp_path: Path, workload: Workload, *results: LoadResult, outcome: Outcome = Outcome.PASS) -> RunRecord:
    """A run as a sweep would have left it: one trial per result."""
    run = rundir.create(tmp_path, "run", b"", {"schema": 1})
    name = cell_id(CELL)
    record = RunRecord(run=run, facts=run.run_json(), cells={name: CELL})
    for attempt, result in enumerate(results, 1):
        trial = TrialRecord(trial=f"{name}-{attempt}", cell_id=name, attempt=attempt)
        trial.observed = [PointMeasured(workload=workload.name, point=point) for point in result.points]
        trial.verdict = Verdict(
            cell_id=name, trial=trial.trial, outcome=outcome, phase=Phase.MEASURE, points=tuple(result.points)
        )
        record.trials[trial.trial] = trial
        for point in result.points:
            rows = json.loads(json.dumps(result.requests))
            tagged = [{"workload": f"{workload.name}-c{point.concurrency}", **row} for row in rows]
            rundir.append_requests(run.trial(trial.trial) / "requests.jsonl.gz", tagged)
    return record


def test_energy_runs_of_every_launch_are_shown_with_their_gate(tmp_path: Path, scripted: Start) -> None:
    workload = replace(preset("energy-e2e").workloads[0], osl=20, isl=40, requests=3)
    server = scripted(rate=800, ttft=0.0)
    record = recorded(tmp_path, workload, measured(server, workload), measured(server, workload))
    shown = publication_tables(record)
    assert "Energy (J/1k tok)" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| FP16")]
    assert [row.split("|")[1].strip() for row in rows] == ["FP16, launch 1", "FP16, launch 2"]
    assert all("|    3 |" in row for row in rows)
    assert "Energy: no meter" in shown
    assert "Energy (J/1k tok)" in app.render(record, "text")
    assert "Energy (J/1k tok)" not in app.render(record, "csv")


def test_a_ladder_keeps_the_rungs_of_a_cell_that_did_not_pass(tmp_path: Path, scripted: Start) -> None:
    workload = replace(preset("context-ladder").workloads[0], osl=20)
    record = recorded(tmp_path, workload, measured(scripted(rate=800), workload), outcome=Outcome.INCONCLUSIVE)
    shown = publication_tables(record)
    assert "| 2048 |" in shown


def test_a_sweep_of_sustained_decode_has_no_table_beside_its_ranking(tmp_path: Path, scripted: Start) -> None:
    workload = Workload(isl=40, osl=40, concurrency=(1,))
    assert publication_tables(recorded(tmp_path, workload, measured(scripted(rate=800), workload))) == ""


def test_the_page_has_the_publications_tables_and_a_bar_in_a_label_breaks_none(tmp_path: Path, scripted: Start) -> None:
    workload = replace(preset("context-ladder").workloads[0], osl=20, isl=300)
    record = recorded(tmp_path, workload, measured(scripted(rate=800), workload))
    record.cells = {name: replace(cell, name="a|b") for name, cell in record.cells.items()}
    page = app.render(record, "html")
    assert "<h2>Context ladder, prefill and generation per rung (P4)</h2>" in page
    assert "<th>prefill tok/s</th>" in page
    assert "<td>300</td>" in page
    twice = {
        "a|b": LoadResult(points=list(record_points(record)), requests=[]),
        "c": LoadResult(points=[], requests=[]),
    }
    assert "a\\|b" in render_preset_table("context-ladder", twice)
    assert "a\\|b" not in page


def record_points(record: RunRecord) -> list[DecodePoint]:
    return [
        item.point for trial in record.trials.values() for item in trial.observed if isinstance(item, PointMeasured)
    ]
