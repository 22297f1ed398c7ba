"""`sweeper compare` on two written runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.cli.main import main
from sweeper.core import codec
from sweeper.core.effective import EffectiveConfig
from sweeper.core.identity import cell_id
from sweeper.core.points import DecodePoint, Quantiles, TokenSource
from sweeper.core.values import Cell
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog

MARLIN = Cell(engine="vllm", model="m", moe_backend="marlin")
CUTLASS = Cell(engine="vllm", model="m", moe_backend="cutlass")
TRITON = Cell(engine="vllm", model="m", moe_backend="triton")


def point(rate: float, source: TokenSource = "usage") -> DecodePoint:
    none = Quantiles(mean=None, p50=None, p99=None)
    return DecodePoint(
        preset="sustained-decode",
        concurrency=8,
        isl=127,
        osl=512,
        decode_tok_s=rate,
        decode_tok_s_per_stream=rate / 8,
        serving_tok_s=None,
        prefill_tok_s=None,
        ttft_ms=none,
        itl_ms=none,
        chunk_gap_ms=none,
        tokens=1,
        tokens_source=source,
        window_s=1.0,
        acceptance=None,
        server_tok_s=None,
        client_cpu_s=None,
        client_bound=False,
    )


def write_run(
    logs: Path,
    name: str,
    launches: dict[Cell, list[float]],
    *,
    driver: str = "575.51",
    version: str = "0.32.0",
    same: int = 1,
    source: TokenSource = "usage",
) -> None:
    """`same`: workloads that ask the same of every launch."""
    facts = {"schema": 1, "host": {"driver": driver, "gpus": [{"name": "NVIDIA H200"}]}}
    run = rundir.create(logs, name, b"", facts)
    log = EventLog(run.events)

    def event(kind: str, data: dict[str, object], trial: str | None = None) -> None:
        log.append(kind, data, utc="2026-11-21T05:00:00Z", mono_s=0.0, trial=trial)

    cells = [{"id": cell_id(cell), "cell": codec.dump(cell)} for cell in launches]
    event("planned", {"cells": cells, "excluded": []})
    for cell, rates in launches.items():
        for n, rate in enumerate(rates, start=1):
            trial, cid = f"{cell_id(cell)}-{n}", cell_id(cell)
            event("trial_started", {"cell_id": cid, "attempt": n}, trial)
            verdict = Verdict(
                cell_id=cid,
                trial=trial,
                outcome=Outcome.PASS,
                phase=Phase.STOP,
                effective=EffectiveConfig(engine_version=version),
                points=(point(rate, source),) * same,
            )
            event("trial_finished", {"verdict": codec.dump(verdict)}, trial)
    log.close()


def test_a_change_is_called_with_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "run-a", {MARLIN: [50.0, 50.3, 50.1], CUTLASS: [40.0, 40.2, 40.1], TRITON: [9.0]})
    write_run(tmp_path, "run-b", {MARLIN: [60.0, 60.2, 60.1], CUTLASS: [40.1, 40.0, 40.3]}, driver="580.10")
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    marlin, cutlass = (next(line for line in out.splitlines() if name in line) for name in ("marlin", "cutlass"))
    assert marlin.split()[-1] == "faster"
    assert "1.197" in marlin
    assert cutlass.split()[-1] == "same"
    assert "differs: driver 575.51 -> 580.10" in out
    assert "only in A: vllm triton tp1" in out


def test_json_has_the_same_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "run-a", {MARLIN: [50.0, 50.3, 50.1]})
    write_run(tmp_path, "run-b", {MARLIN: [40.0, 40.2, 40.1]})
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (cell,) = told["cells"]
    assert (told["schema"], told["a"], told["b"]) == (1, "run-a", "run-b")
    assert (cell["verdict"], cell["workload"]) == ("slower", "sustained-decode c=8 130/512")
    assert cell["ratio"] == pytest.approx(0.8, abs=0.01)
    assert cell["interval"][0] < cell["ratio"] < cell["interval"][1]
    assert cell["a"]["launches"] == 3
    assert cell["p"] < 0.05


def test_one_launch_a_side_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "run-a", {MARLIN: [50.0]})
    write_run(tmp_path, "run-b", {MARLIN: [60.0]})
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "faster?" in out
    assert "--launches 3" in out


def test_two_workloads_that_ask_the_same_of_one_server_are_one_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "run-a", {MARLIN: [50.0]}, same=2)
    write_run(tmp_path, "run-b", {MARLIN: [60.0]}, same=2)
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    assert "faster?" in capsys.readouterr().out


def test_short_names_fit_any_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = Cell(engine="transformers", model="m", name="FP16")
    write_run(tmp_path, "run-a", {named: [50.0]})
    assert main(["compare", "run-a", "run-a", "--logs", str(tmp_path)]) == 0
    assert "FP16" in capsys.readouterr().out


def test_a_figure_that_cannot_be_is_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a report: faster than the dense weights can be read from the GPU's memory."""
    known = Cell(engine="vllm", model="Qwen3-30B-A3B", quantization="bf16")
    write_run(tmp_path, "run-a", {known: [500.0]})
    write_run(tmp_path, "run-b", {known: [5e6]})
    assert main(["compare", "run-a", "run-a", "--logs", str(tmp_path)]) == 0
    assert "same" in capsys.readouterr().out
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    assert "No cell passed in both runs under the same workload." in capsys.readouterr().out


def test_tokens_counted_another_way_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "run-a", {MARLIN: [50.0]})
    write_run(tmp_path, "run-b", {MARLIN: [60.0]}, source="tokenizer")
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    assert "No cell passed in both runs under the same workload." in capsys.readouterr().out
    assert main(["compare", "run-b", "run-b", "--logs", str(tmp_path)]) == 0
    assert "130/512, counted by tokenizer" in capsys.readouterr().out


def test_another_engine_version_is_the_same_cell_under_other_conditions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "run-a", {replace(MARLIN, engine_version="0.31.0"): [50.0, 50.1]}, version="0.31.0")
    write_run(tmp_path, "run-b", {replace(MARLIN, engine_version="0.32.0"): [60.0, 60.1]}, version="0.32.0")
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "faster" in out
    assert "differs: engine version 0.31.0 -> 0.32.0" in out
    assert "only in" not in out


def test_runs_without_a_common_cell_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "run-a", {MARLIN: [50.0]})
    write_run(tmp_path, "run-b", {CUTLASS: [60.0]})
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "No cell passed in both runs" in out
    assert "only in A: vllm marlin tp1" in out
    assert "only in B: vllm cutlass tp1" in out


def test_an_unknown_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "x", "y", "--logs", str(tmp_path)]) == 2
    assert "no run 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("wide", [70, 100])
def test_the_tables_fit_the_terminal(
    wide: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    long = replace(MARLIN, name="marlin with a label that names several environment variables of the cell")
    write_run(tmp_path, "run-a", {long: [50.0, 50.3, 50.1], CUTLASS: [40.0, 40.2, 40.1]})
    write_run(tmp_path, "run-b", {long: [60.0, 60.2, 60.1], CUTLASS: [40.1, 40.0, 40.3]})
    assert main(["compare", "run-a", "run-b", "--logs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= wide
    assert "faster" in out
    assert "sustained-decode c=8 130/512\n" in out
