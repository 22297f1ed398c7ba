"""The preflight over real vLLM: cells that cannot work never load the real weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import Swept, model_dir, sweep

MATRIX = "matrices/preflight-cpu.yaml"
CELLS = "vllm triton tp1,vllm marlin tp1,auto tp1,auto tp2 threads bound"


@pytest.fixture(scope="module")
def swept(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Swept, Path]:
    """Four cells, three of which cannot work; the `real` model is a second copy of the small one."""
    root = tmp_path_factory.mktemp("preflight")
    real = root / "real-model"
    shutil.copytree(model_dir(), real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SWEEPER_REAL_MODEL", str(real))
        patch.setitem(os.environ, "SWEEPER_CANARY", str(model_dir()))
        found = sweep(MATRIX, root / "logs", "--only", CELLS)
    (run,) = (root / "logs").iterdir()
    return found, run


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_three_of_four_cells_fail_on_the_canary_with_their_causes(swept: tuple[Swept, Path]) -> None:
    outcomes = swept[0].verdicts()
    assert outcomes.pop("auto tp1") == "ran"
    assert outcomes == {
        "vllm triton tp1": "FAIL canary moe-backend-rejected",
        "vllm marlin tp1": "FAIL canary moe-backend-rejected",
        "auto tp2 threads bound": "FAIL canary cpu-numa-nodes-insufficient",
    }


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_only_the_cell_that_works_loads_the_real_weights(swept: tuple[Swept, Path]) -> None:
    _, run = swept
    servers = [log for log in run.glob("trials/*/server.log") if "/real-model" in log.read_text("utf-8", "replace")]
    assert len(servers) == 1
    canaries = list(run.glob("trials/*/canary*.log"))
    assert len(canaries) == 2
    assert not any("/real-model" in log.read_text("utf-8", "replace") for log in canaries)


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_numbers_were_looked_at_and_the_saving_is_told(swept: tuple[Swept, Path]) -> None:
    found, run = swept
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (healthy,) = [
        e["data"] for e in events if e["type"] == "canary_launched" and e["data"]["checked"]["verdict"] == "right"
    ]
    assert healthy["checked"]["figures"]["generations"] >= 74
    assert "preflight: 3 of 4 cells failed on the canary and never loaded the real weights (2 of them" in found.stderr
    saving = found.report["preflight"]
    assert (saving["canary_launches"], saving["failed"], saving["ruled_out"]) == (2, 3, 2)
    assert saving["saved_s"] > 0
