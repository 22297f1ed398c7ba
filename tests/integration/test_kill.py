"""`kill -9` of a sweep at random moments, resumed each time: nothing is lost, repeated or left running."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.launchers import processes
from tests.servers.argv import scripted

CELLS = 6
KILLS = 10


def matrix(folder: Path) -> Path:
    """Six servers that answer at once, one that dies, one that hangs after a kernel failure."""
    failing = "Failed to initialize cutlass TMA WS grouped gemm. Error: Error Internal"
    cells: list[dict[str, Any]] = [{"name": f"cell {n}", "extra_args": [f"--cell={n}"]} for n in range(CELLS)]
    cells.append({"name": "dies", "extra_args": ["--hang", "--exit-after", "0.3"]})
    cells.append({"name": "kernel", "extra_args": ["--hang", "--log-line", f"0.3:RuntimeError: {failing}"]})
    whole = {
        "engine": "command",
        "model": "scripted",
        "command": [*scripted(rate=300, model="scripted")],
        "cells": cells,
        "workloads": [{"isl": 16, "osl": 64, "concurrency": [1, 2], "window_s": 0.2, "warmup_s": 0}],
        "policy": {"deadlines": {"ready_s": 20, "stop_s": 2}},
        "hardware": {"count": 0},
    }
    path = folder / "killed.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


def sweeper(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "sweeper", *arguments]
    return subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished_trials(events: Path) -> Counter[str]:
    """How often each cell got a trial that settles it. ABORTED and INCONCLUSIVE ones are tried again by design."""
    seen: Counter[str] = Counter()
    for raw in events.read_bytes().splitlines():
        try:
            event = json.loads(raw)
        except ValueError:
            continue
        if event["type"] == "trial_finished" and event["data"]["verdict"]["outcome"] in ("PASS", "FAIL"):
            seen[event["trial"].rsplit("-", 1)[0]] += 1
    return seen


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_ten_kills_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    path = matrix(tmp_path)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    run: Path | None = None
    for _ in range(KILLS):
        more = ["--resume", str(run)] if run else []
        child = sweeper("run", str(path), "--logs", str(tmp_path / "logs"), *more, cwd=tmp_path)
        deadline = time.monotonic() + dice.uniform(0.4, 4.0)
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.02)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        run = run or next(iter((tmp_path / "logs").glob("*/run.json")), None)
        run = run.parent if run and run.name == "run.json" else run
    more = ["--resume", str(run)] if run else []
    last = sweeper("run", str(path), "--logs", str(tmp_path / "logs"), *more, "--json", cwd=tmp_path)
    out, err = last.communicate(timeout=240)
    assert last.returncode == 1, err
    report = json.loads(out)

    assert run is not None
    trials = finished_trials(run / "events.jsonl")
    assert set(trials.values()) == {1}, f"a finished trial was repeated (seed {seed}): {trials}"
    causes = {row["label"]: row["cause"] for row in report["unranked"]}
    assert causes.pop("dies") == "unknown-exit"
    assert causes.pop("kernel") == "cutlass-tma-ws-grouped-gemm-init"
    # A window that other work on this machine spoiled is INCONCLUSIVE: not ranked, and not lost either.
    assert set(causes.values()) <= {"window-invalid"}, causes
    ranked = {row["label"] for row in report["ranking"]}
    assert ranked | set(causes) == {f"cell {n}" for n in range(CELLS)}

    cleaned = sweeper("clean", cwd=tmp_path)
    cleaned.communicate(timeout=60)
    assert cleaned.returncode == 0
    assert [entry for entry in processes.marked() if entry.mark.run_id == run.name] == []


def test_ctrl_c_stops_the_server_and_the_run_can_go_on(tmp_path: Path) -> None:
    path = matrix(tmp_path)
    child = sweeper("run", str(path), "--logs", str(tmp_path / "logs"), cwd=tmp_path)
    events = None
    for _ in range(200):
        time.sleep(0.05)
        events = events or next(iter((tmp_path / "logs").glob("*/events.jsonl")), None)
        if events and b'"launched"' in events.read_bytes():
            break
    child.send_signal(signal.SIGINT)
    _out, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert "--resume" in err
    assert events is not None
    assert b'"ABORTED"' in events.read_bytes()
    assert [entry for entry in processes.marked() if entry.mark.run_id == events.parent.name] == []
