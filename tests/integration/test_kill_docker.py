"""`kill -9` of a sweep whose server is a container: it outlives the sweep, and neither resume nor clean loses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper.launchers.labels import LABEL_RUN
from tests.integration.conftest import IMAGE, ROOT, environment
from tests.integration.test_kill import finished_trials

SHORT = "matrices/quickstart-cpu-short.yaml"
CELLS = "vllm auto tp1,vllm flashinfer_cutlass tp1"


def containers(run: str) -> list[str]:
    """Ids of this run's containers, whatever their state."""
    argv = ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL_RUN}={run}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def start(*more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "sweeper", "run", SHORT, "--launcher", "docker", "--image", IMAGE, "--only", CELLS]
    return subprocess.Popen(
        [*argv, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def killed_with_a_container(logs: Path) -> Path:
    """The folder of a run that was killed while its first container was starting."""
    child = start("--logs", str(logs))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        run = next(iter(logs.glob("*/events.jsonl")), None)
        if run is not None and b'"launched"' in run.read_bytes() and containers(run.parent.name):
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            return run.parent
        time.sleep(0.05)
    out, err = child.communicate(timeout=5)
    raise AssertionError(f"no container was started\n{out}\n{err}")


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_a_container_left_by_a_kill_is_found_again_and_nothing_is_left(engine: Path, tmp_path: Path) -> None:
    run = killed_with_a_container(tmp_path)
    assert containers(run.name), "the container ended with the killed sweep; nothing was shown"

    last = start("--logs", str(tmp_path), "--resume", str(run), "--json")
    out, err = last.communicate(timeout=400)
    assert last.returncode == 1, err
    report = json.loads(out)
    assert {row["cause"] for row in report["unranked"]} <= {"moe-backend-rejected", "window-invalid"}, report
    assert set(finished_trials(run / "events.jsonl").values()) == {1}

    cleaned = subprocess.run([sys.executable, "-m", "sweeper", "clean"], cwd=ROOT, capture_output=True, text=True)
    assert cleaned.returncode == 0, cleaned.stderr
    assert containers(run.name) == []


@pytest.mark.docker
@pytest.mark.timeout(200)
def test_clean_alone_removes_the_container_of_a_killed_sweep(engine: Path, tmp_path: Path) -> None:
    run = killed_with_a_container(tmp_path)
    cleaned = subprocess.run([sys.executable, "-m", "sweeper", "clean"], cwd=ROOT, capture_output=True, text=True)
    assert cleaned.returncode == 0, cleaned.stderr
    assert containers(run.name) == []
