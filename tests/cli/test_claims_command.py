"""`sweeper claims` on a simulated run at P1's conditions: four RTX PRO 6000 under WSL2, Qwen3.5-397B in NVFP4."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli.main import main
from sweeper.core import codec
from sweeper.core.effective import EffectiveConfig
from sweeper.core.identity import cell_id
from sweeper.core.points import Acceptance, DecodePoint, Quantiles
from sweeper.core.values import Cell, Parallelism, Speculative
from sweeper.core.verdicts import Cause, Outcome, Phase, Verdict
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog

GPU = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
MARLIN = Cell(
    engine="vllm",
    engine_version="0.19.1",
    image="vllm/vllm-openai:v0.19.1",
    model="nvidia/Qwen3.5-397B-A17B-NVFP4",
    quantization="nvfp4",
    moe_backend="marlin",
    parallelism=Parallelism(tp=4),
    name="Marlin W4A16, TP=4, no MTP",
)
PIPELINE = replace(MARLIN, parallelism=Parallelism(tp=2, pp=2), name="Marlin, TP=2 + PP=2")
MTP = replace(MARLIN, speculative=Speculative(method="mtp", tokens=2, moe_backend="auto"), name="Marlin, MTP=2")
AUTO = replace(MARLIN, moe_backend="auto", name="auto")
HOST = {"wsl": "WSL2", "driver": "575.51", "gpus": [{"name": GPU, "mig": False, "power_limit_w": 600.0}] * 4}
NONE = Quantiles(mean=None, p50=None, p99=None)


def point(rate: float, *, concurrency: int = 1, isl: int = 128, length: float | None = None, **more: Any) -> DecodePoint:
    return DecodePoint(
        **{
            "preset": "sustained-decode",
            "concurrency": concurrency,
            "isl": isl,
            "osl": 1024,
            "decode_tok_s": rate,
            "decode_tok_s_per_stream": rate / concurrency,
            "serving_tok_s": None,
            "prefill_tok_s": None,
            "ttft_ms": NONE,
            "itl_ms": NONE,
            "chunk_gap_ms": NONE,
            "tokens": 1000,
            "tokens_source": "usage",
            "window_s": 30.0,
            "acceptance": Acceptance(rate=0.73, length=length) if length else None,
            "server_tok_s": rate,
            "client_cpu_s": None,
            "client_bound": False,
            **more,
        }
    )


def write_run(logs: Path, cells: Mapping[Cell, list[DecodePoint]], *, host: Mapping[str, Any] = HOST) -> None:
    """One passed launch per point; no points: one launch that writes garbage."""
    run = rundir.create(logs, "p1", b"", {"schema": 1, "host": dict(host), "hardware": {}})
    log = EventLog(run.events)

    def event(kind: str, data: dict[str, object], trial: str | None = None) -> None:
        log.append(kind, data, utc="2026-11-21T05:00:00Z", mono_s=0.0, trial=trial)

    planned = [{"id": cell_id(cell), "cell": codec.dump(cell)} for cell in cells]
    event("planned", {"cells": planned, "excluded": []})
    for cell, points in cells.items():
        for n, one in enumerate(points or [None], start=1):
            trial, cid = f"{cell_id(cell)}-{n}", cell_id(cell)
            event("trial_started", {"cell_id": cid, "attempt": n}, trial)
            verdict = Verdict(
                cell_id=cid,
                trial=trial,
                outcome=Outcome.PASS if one else Outcome.FAIL,
                phase=Phase.STOP if one else Phase.SANITY,
                cause=None if one else Cause(id="garbage-output", means="the text is no language"),
                effective=EffectiveConfig(engine_version="0.19.1", moe_backend=None if cell is AUTO else cell.moe_backend),
                points=(one,) if one else (),
            )
            event("trial_finished", {"verdict": codec.dump(verdict)}, trial)
    log.close()


P1 = {
    MARLIN: [point(50.3), point(50.6), point(50.4)],
    PIPELINE: [point(48.8), point(49.1), point(49.0)],
    MTP: [point(39.2, length=1.46), point(39.9, length=1.47), point(39.5, length=1.46)],
    AUTO: [],
}


@pytest.fixture
def p1(tmp_path: Path) -> Path:
    write_run(tmp_path, P1)
    return tmp_path


def checked(logs: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["claims", "check", "p1", "--logs", str(logs), "--json", *more])
    return code, {item["id"]: item for item in json.loads(capsys.readouterr().out)}


def test_the_published_figures_are_met_with_their_interval(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    best = told["p1-marlin-tp4"]
    assert (best["verdict"], best["claimed"]) == ("met", 50.5)
    assert best["measured"] == pytest.approx(50.43, abs=0.01)
    assert best["interval"][0] < 50.43 < best["interval"][1]
    assert told["p1-marlin-tp2-pp2"]["verdict"] == "met"
    assert (told["p1-marlin-mtp2"]["verdict"], told["p1-marlin-mtp2"]["claimed"]) == ("met", [39.0, 40.0])
    assert told["p1-ceiling"]["verdict"] == "met"
    assert told["p1-mtp2-acceptance"]["verdict"] == "met"
