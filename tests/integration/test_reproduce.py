"""A report of a failed quickstart cell, unpacked in an empty folder, shows the failure again over the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, environment, sweep

SHORT = "matrices/quickstart-cpu-short.yaml"
TOKEN = "hf_PlantedInTheRealRun12345678"


@pytest.fixture(scope="module")
def unpacked(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder of a report on the quickstart's tensor-parallel cell, which fails for want of NUMA nodes."""
    logs, empty = tmp_path_factory.mktemp("logs"), tmp_path_factory.mktemp("empty")
    swept = sweep(SHORT, logs, "--only", "tp=2")
    (row,) = swept.report["unranked"]
    assert row["cause"] == "cpu-numa-nodes-insufficient", row
    out = empty / "report.tar.gz"
    argv = [sys.executable, "-m", "sweeper", "bugreport", row["cell"], "--logs", str(logs), "--yes", "--out", str(out)]
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, env={**environment(), "HF_TOKEN": TOKEN}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(out) as packed:
        packed.extractall(empty, filter="data")
    out.unlink()
    (folder,) = empty.iterdir()
    return folder


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_one_command_reproduces_the_failure(unpacked: Path, engine: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sweeper", "reproduce", str(unpacked), "--python", str(engine), "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["result"] == "reproduced"
    assert found["seen"]["cause"] == "cpu-numa-nodes-insufficient"
    assert found["versions"] == []


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_the_script_needs_no_sweeper(unpacked: Path, engine: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHON": str(engine)}
    script = unpacked / "reproducer/reproduce.sh"
    done = subprocess.run([str(script)], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced: cpu-numa-nodes-insufficient" in done.stdout


@pytest.mark.engine
def test_the_report_holds_no_secret_of_this_environment(unpacked: Path) -> None:
    for path in unpacked.rglob("*"):
        if path.is_file() and "work" not in path.parts:
            assert TOKEN.encode() not in path.read_bytes(), path
