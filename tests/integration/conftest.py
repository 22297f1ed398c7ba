"""Real engines: where they are, and a sweep run through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("SWEEPER_ENGINE_IMAGE", "sweeper-vllm-cpu:0.32.0")


@dataclass(frozen=True)
class Swept:
    """Exit code, report and run folder of one sweep."""

    code: int
    report: dict[str, Any]
    stderr: str

    def outcome(self, label: str) -> str:
        """PASS, or `FAIL phase cause` of the one cell whose label holds these words."""
        ranked = {row["label"] for row in self.report["ranking"]}
        failed = {row["label"]: f"{row['outcome']} {row['phase']} {row['cause']}" for row in self.report["unranked"]}
        known = {**dict.fromkeys(ranked, "PASS"), **failed}
        return known[label]

    def verdicts(self) -> dict[str, str]:
        """As `outcomes`, but a window that the machine's other work spoiled counts as a cell that ran.

        These engines share two cores with the client: an honest run may find a window invalid, and may not find a
        healthy server broken.
        """
        spoiled = "INCONCLUSIVE measure window-invalid"
        return {label: "ran" if text in ("PASS", spoiled) else text for label, text in self.outcomes().items()}

    def outcomes(self) -> dict[str, str]:
        labels = {row["label"] for row in self.report["ranking"]} | {row["label"] for row in self.report["unranked"]}
        return {label: self.outcome(label) for label in labels}


def sweep(matrix: str, logs: Path, *more: str, timeout_s: float = 1200) -> Swept:
    """`sweeper run MATRIX --json` as a person would, from the repository's root."""
    argv = [sys.executable, "-m", "sweeper", "run", matrix, "--logs", str(logs), "--json", *more]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, env=environment())
    assert done.returncode in (0, 1), f"exit {done.returncode}\n{done.stderr}"
    return Swept(code=done.returncode, report=json.loads(done.stdout), stderr=done.stderr)


def environment() -> dict[str, str]:
    return {"SWEEPER_ENGINE_PYTHON": str(engine_python()), "SWEEPER_MODEL": str(model_dir()), **os.environ}


def engine_python() -> Path:
    return Path(os.environ.get("SWEEPER_ENGINE_PYTHON", ROOT / ".sweeper/engines/vllm-cpu/bin/python")).absolute()


def model_dir() -> Path:
    return Path(os.environ.get("SWEEPER_MODEL", ROOT / ".sweeper/quickstart/model")).absolute()


@pytest.fixture(scope="session")
def engine() -> Path:
    """The real engine's interpreter; a missing one is a failure of the set-up, never a silent skip."""
    assert engine_python().exists(), f"no engine at {engine_python()}: run `make integration`"
    assert (model_dir() / "config.json").exists(), f"no model at {model_dir()}: run `make integration`"
    return engine_python()
