"""`report`, `status`, `judge` and `show` on a written run."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from report import runs

from sweeper.cli.main import main
from sweeper.core import codec
from sweeper.core.identity import cell_id
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog, Lock

MATRIX = b"engine: vllm\nmodel: m\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """One run: a cell that passed, one that failed, one that was not tried."""
    run = rundir.create(tmp_path, "2026-11-21T080000Z-demo-0001", MATRIX, {"schema": 1, "title": "Demo"})
    log = EventLog(run.events)
    cells = [{"id": cell_id(cell), "cell": codec.dump(cell)} for cell in (runs.AUTO, runs.BROKEN, runs.MARLIN)]
    log.append("planned", {"cells": cells, "excluded": []}, utc="2026-11-21T08:00:00Z", mono_s=0.0)
    for verdict in (runs.passed(runs.AUTO, runs.point(100.0)), runs.failed(runs.BROKEN)):
        begun = {"cell_id": verdict.cell_id, "attempt": 1}
        log.append("trial_started", begun, utc="2026-11-21T08:00:00Z", mono_s=0.0, trial=verdict.trial)
        done = {"verdict": codec.dump(verdict)}
        log.append("trial_finished", done, utc="2026-11-21T08:01:00Z", mono_s=9.0, trial=verdict.trial)
    log.close()
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_every_form_of_the_report_has_both_cells(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "md", "csv", "json", "html"):
        shown = said(capsys, "report", "last", "--format", form, "--logs", logs)
        assert "100" in shown, form
        assert "cutlass-tma-ws-init" in shown, form
    assert len(list(csv.reader(io.StringIO(said(capsys, "report", "demo", "--format", "csv", "--logs", logs))))) == 3


def test_json_is_a_form_and_a_flag(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = said(capsys, "report", "last", "--json", "--logs", logs)
    assert json.loads(flag)["schema"] == 1
    assert flag == said(capsys, "report", "last", "--format", "json", "--logs", logs)


def test_a_report_goes_into_a_file(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "report", "last", "--format", "html", "--out", logs / "r.html", "--logs", logs) == ""
    assert (logs / "r.html").read_text().startswith("<!doctype html>")


def test_piped_text_has_no_control_characters(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("report", "status"):
        assert "\x1b" not in said(capsys, command, "last", "--logs", logs)


def test_an_unknown_form_or_run_is_one_message(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "last", "--format", "pdf", "--logs", str(logs)]) == 2
    assert "Formats: text, md, csv, json, html" in capsys.readouterr().err
    assert main(["report", "nothing", "--logs", str(logs)]) == 2
    assert "no run 'nothing'" in capsys.readouterr().err


def test_status_lists_the_ids_that_show_takes(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "status", "--logs", logs)
    assert "cut off; 1 PASS, 1 FAIL, 1 waiting" in shown
    line = next(line for line in shown.splitlines() if line.strip().startswith("FAIL"))
    assert "cutlass-tma-ws-init" in said(capsys, "show", line.split()[1], "--logs", logs)
    assert f"continue: sweeper run MATRIX --resume {next(logs.iterdir())}\n" in shown


def test_status_tells_a_sweep_that_runs_from_one_that_was_cut_off(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rundir.RunDir(next(logs.iterdir()))
    begun = {"cell_id": cell_id(runs.MARLIN), "attempt": 1}
    log = EventLog(run.events)
    log.append("trial_started", begun, utc="2026-11-21T08:02:00Z", mono_s=9.0, trial="m-1")
    log.close()
    lock = Lock(run.path)
    shown = said(capsys, "status", "--logs", logs)
    assert f"running, pid {os.getpid()} on " in shown
    assert "\nnow: " in shown
    assert "continue" not in shown
    lock.release()
    shown = said(capsys, "status", "--logs", logs)
    assert "\ncut off in: " in shown
    assert "\nnow: " not in shown


def test_judging_again_changes_nothing_unless_told_to(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = next(logs.glob("*/events.jsonl"))
    before = events.read_bytes()
    assert main(["judge", "last", "--logs", str(logs)]) == 0
    out, err = capsys.readouterr()
    assert "changed" in out
    assert "--keep" in err
    assert events.read_bytes() == before
    assert main(["judge", "last", "--keep", "--logs", str(logs)]) == 0
    assert events.read_bytes() != before
