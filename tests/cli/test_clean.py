"""Real processes; containers are left to the tests that have a Docker engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli.main import main
from sweeper.core.values import LaunchPlan
from sweeper.launchers import cleanup, processes
from sweeper.launchers.cleanup import clean
from sweeper.launchers.process import ProcessLauncher

RUN = f"test-clean-{os.getpid()}"
LISTEN = (
    "import socket, time; s = socket.create_server(('127.0.0.1', 0))\n"
    "print(s.getsockname()[1], flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def _ours_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cleanup, "_containers", lambda: ([], None))
    yield
    processes.send([entry for entry in processes.marked() if entry.mark.run_id == RUN], signal.SIGKILL)


def seen_marked() -> None:
    """A process that was just started has no environment for a moment: the kernel sets it up after `exec` began."""
    until = time.monotonic() + 5
    while not [entry for entry in processes.marked() if entry.mark.run_id == RUN] and time.monotonic() < until:
        time.sleep(0.02)


def left_by_a_killed_sweep(tmp_path: Path) -> int:
    """A server whose controller was killed with -9; returns its port."""
    program = (
        "import os, sys; from pathlib import Path; from sweeper.core.values import LaunchPlan\n"
        "from sweeper.launchers.process import ProcessLauncher\n"
        f"plan = LaunchPlan(argv=(sys.executable, '-c', {LISTEN!r}), env={{}}, served_model='m')\n"
        f"log = Path({str(tmp_path / 'left.log')!r})\n"
        f"ProcessLauncher().start(plan, log_path=log, run_id={RUN!r}, trial='left-1', gpus=())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    log = tmp_path / "left.log"
    deadline = time.monotonic() + 10
    while not log.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(log.read_text())


def cleaned(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["clean", RUN, "--json", *args]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_what_a_killed_sweep_left_is_removed_with_its_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = left_by_a_killed_sweep(tmp_path)
    would = cleaned(capsys, "--dry-run")
    assert would["dry_run"] is True
    assert [(item["kind"], item["trial"], item["ports"]) for item in would["removed"]] == [
        ("process", "left-1", [port])
    ]
    assert len(cleaned(capsys)["removed"]) == 1
    assert cleaned(capsys) == {
        "schema": 1, "dry_run": False, "removed": [], "kept": [], "failed": [], "docker_problem": None, "caches": [],
    }  # fmt: skip


def test_a_sweep_that_still_runs_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = LaunchPlan(argv=(sys.executable, "-c", LISTEN), env={}, served_model="m")
    with ProcessLauncher().start(plan, log_path=tmp_path / "s.log", run_id=RUN, trial="t", gpus=()) as server:
        seen_marked()
        assert main(["clean", RUN]) == 0
        assert "its sweep still runs" in capsys.readouterr().out
        assert server.poll() is None
        assert len(cleaned(capsys, "--all")["removed"]) == 1
        assert server.stop(1.0).code == 143


def test_other_runs_are_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_by_a_killed_sweep(tmp_path)
    assert main(["clean", "another-run"]) == 0
    assert capsys.readouterr().out == "nothing to clean\n"
    assert len(cleaned(capsys)["removed"]) == 1


def test_resuming_says_what_it_removed(tmp_path: Path) -> None:
    port = left_by_a_killed_sweep(tmp_path)
    said = clean(RUN)
    assert said.startswith("removed what a crashed sweep left: process ")
    assert f"port {port}" in said
    assert clean(RUN) == "the earlier sweep left nothing running"


def test_no_docker_engine_is_said_on_stderr_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cleanup, "_containers", lambda: ([], "no Docker engine answers at unix:///x"))
    assert main(["clean", RUN]) == 0
    seen = capsys.readouterr()
    assert seen.out == "nothing to clean\n"
    assert "no Docker engine answers" in seen.err
