"""The preflight in whole sweeps: a program that answers like vLLM, real processes, real HTTP, no model."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import app, tools, views
from sweeper.checking import CheckOptions, check_server
from sweeper.clock import SystemClock
from sweeper.core import codec
from sweeper.core.canaries import CanaryLaunch, Refusal
from sweeper.core.identity import cell_id
from sweeper.core.observations import CanaryChecked
from sweeper.core.values import (
    Cell,
    Deadlines,
    Expansion,
    Hardware,
    Matrix,
    Parallelism,
    PlannedCell,
    Policy,
    Speculative,
    Workload,
)
from sweeper.core.verdicts import Cause, Outcome, Verdict
from sweeper.preflight import Preflight, canary_cell
from sweeper.report.progress import Console
from sweeper.runner import Sweep, go, plain_rounds, restore
from sweeper.savings import saving
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog
from sweeper.store.record import RunRecord, read
from sweeper.trial import Request

FAKE = Path(__file__).parent / "servers" / "fake_vllm.py"


@dataclass
class Bench:
    """Where one test's sweeps run: a real model's folder, a canary's, and the list of everything that was started."""

    root: Path
    checks: int = 0

    def prepare(self) -> Bench:
        for name in ("real-model", "canary"):
            (self.root / name).mkdir()
            config = {
                "model_type": "qwen3_moe",
                "architectures": ["Qwen3MoeForCausalLM"],
                "max_position_embeddings": 4096,
            }
            (self.root / name / "config.json").write_text(json.dumps(config))
        python = self.root / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} "$@"\n')
        python.chmod(0o755)
        return self

    def cell(self, backend: str = "auto", **more: Any) -> Cell:
        env = {"FAKE_VLLM_STARTS": str(self.root / "starts"), "VLLM_CPU_KVCACHE_SPACE": "1"}
        return Cell(
            engine="vllm",
            engine_version="0.32.0",
            model=str(self.root / "real-model"),
            python=str(self.root / "python"),
            moe_backend=backend,
            env=tuple(sorted({**env, **more.pop("env", {})}.items())),
            **more,
        )

    def starts(self) -> list[tuple[str, str, int, bool]]:
        """Model folder, backend, TP, whether at debug level; in order."""
        path = self.root / "starts"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def check(self, base_url: str, model: str, canary: Path) -> CanaryChecked:
        """Text only: this server knows no golden vectors."""
        self.checks += 1
        found = check_server(base_url, model, None, CheckOptions(generations=4))
        garbage = found.degenerate > 0
        return CanaryChecked(verdict="garbage" if garbage else "right", figures={"degenerate": found.degenerate})

    def sweep(
        self, cells: list[Cell], *, preflight: Preflight | None = None, launches: int = 1, canary_s: float = 300.0
    ) -> Sweep:
        folder = self.root / "logs" / "run"
        run = rundir.RunDir(folder) if folder.exists() else rundir.create(self.root / "logs", "run", b"", {"schema": 1})
        planned = tuple(PlannedCell(cell=cell, cell_id=cell_id(cell)) for cell in cells)
        matrix = Matrix(
            name="m", path="m.yaml", cells=tuple(cells), author_excluded=(), hardware=Hardware(),
            workloads=(Workload(isl=16, osl=64, concurrency=(1,), window_s=0.2, warmup_s=0.0),),
            policy=Policy(launches=launches, deadlines=Deadlines(ready_s=20.0, stop_s=3.0, canary_s=canary_s)),
        )  # fmt: skip
        clock, log = SystemClock(), EventLog(run.events)
        made = tools.build(matrix, "process", (), clock, lambda text: None)
        canary = self.root / "canary"
        sweep = Sweep(
            run=run,
            matrix=matrix,
            expansion=Expansion(cells=planned, excluded=()),
            tools=replace(
                made,
                preflight=preflight or Preflight(canary_of=lambda cell: canary, check=self.check, cells=tuple(cells)),
            ),
            log=log,
            clock=clock,
            progress=Console(),
            gpus=(),
            next_cells=plain_rounds([item.cell_id for item in planned], launches),
            compare=lambda cell, verdict: (),
        )
        known = [{"id": item.cell_id, "cell": codec.dump(item.cell)} for item in planned]
        log.append("planned", {"cells": known, "excluded": []}, utc=clock.utc(), mono_s=clock.mono_s())
        return sweep

    def run(self, cells: list[Cell], **options: Any) -> RunRecord:
        sweep = self.sweep(cells, **options)
        go(sweep)
        sweep.log.close()
        return read(sweep.run)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path).prepare()


def verdicts(record: RunRecord) -> dict[str, Verdict]:
    """The last verdict by label."""
    return {record.cells[t.cell_id].label(): t.verdict for t in record.trials.values() if t.verdict}


def why(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.outcome.value, verdict.phase.value, verdict.cause.id if verdict.cause else ""


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, RunRecord]:
    """Ten cells, of which six cannot work; named backends stand before the `auto` of their layout."""
    bench = Bench(tmp_path_factory.mktemp("ten")).prepare()
    ngram = Speculative(method="ngram", tokens=3)
    cells = [
        bench.cell(name) for name in ("cutlass", "marlin", "flashinfer_trtllm", "deep_gemm", "triton", "emulation")
    ]
    cells += [bench.cell(), bench.cell(parallelism=Parallelism(tp=2))]
    cells += [bench.cell(speculative=ngram), bench.cell(attention_backend="CPU_ATTN", name="auto attention")]
    return bench, bench.run(cells)


def test_six_of_ten_cells_fail_on_the_canary_and_four_pass(ten: tuple[Bench, RunRecord]) -> None:
    found = {label: why(verdict) for label, verdict in verdicts(ten[1]).items()}
    rejected = ("FAIL", "canary", "moe-backend-rejected")
    assert found == {
        "vllm cutlass tp1": rejected,
        "vllm flashinfer_trtllm tp1": rejected,
        "vllm deep_gemm tp1": rejected,
        "vllm triton tp1": rejected,
        "vllm emulation tp1": ("FAIL", "canary", "garbage-output"),
        "vllm auto tp2": ("FAIL", "canary", "cpu-numa-nodes-insufficient"),
        "vllm marlin tp1": ("PASS", "measure", ""),
        "vllm auto tp1": ("PASS", "measure", ""),
        "vllm auto tp1 ngram3": ("PASS", "measure", ""),
        "auto attention": ("PASS", "measure", ""),
    }


def test_the_real_weights_are_loaded_by_the_cells_that_work_and_by_no_other(ten: tuple[Bench, RunRecord]) -> None:
    bench, _ = ten
    real = [(backend, tp) for model, backend, tp, _ in bench.starts() if model == "real-model"]
    assert sorted(real) == [("auto", 1), ("auto", 1), ("auto", 1), ("marlin", 1)]


def test_auto_goes_first_at_debug_level_and_what_it_rules_out_is_never_started(ten: tuple[Bench, RunRecord]) -> None:
    bench, _ = ten
    canary = [start[1:] for start in bench.starts() if start[0] == "canary"]
    assert canary[0] == ("auto", 1, True)
    assert [backend for backend, tp, _ in canary if tp == 1] == [
        "auto",
        "marlin",
        "deep_gemm",
        "emulation",
        "auto",
        "auto",
    ]
    assert all(debug == (backend == "auto") for backend, _, debug in canary)


def test_each_failure_points_at_the_line_that_proves_it(ten: tuple[Bench, RunRecord]) -> None:
    _, record = ten
    for label, needle in (
        ("vllm cutlass tp1", "'VLLM_CUTLASS' does not support"),
        ("vllm deep_gemm tp1", "moe_backend='deep_gemm' is not supported"),
        ("vllm triton tp1", "Expected one of"),
        ("vllm auto tp2", "Not enough allowed NUMA nodes"),
    ):
        cause = verdicts(record)[label].cause
        assert cause is not None
        assert cause.log is not None
        assert cause.line_no is not None
        lines = (record.run.path / cause.log).read_text().splitlines()
        assert needle in lines[cause.line_no - 1]


def test_what_was_saved_is_in_the_report_as_text_and_json(ten: tuple[Bench, RunRecord]) -> None:
    _, record = ten
    found = saving(record)
    assert found is not None
    assert (found.launches, found.cells, found.failed, found.ruled_out) == (7, 10, 6, 3)
    text = app.render(record, "text").replace("\n", " ")
    assert "preflight: 6 of 10 cells failed on the canary and never loaded the real weights (3 of them" in text
    assert "7 canary launches took" in text
    data = json.loads(app.render(record, "json"))["preflight"]
    assert (data["failed"], data["ruled_out"], data["canary_launches"]) == (6, 3, 7)
    assert data["saved_s"] == pytest.approx(6 * data["start_s"], abs=1.0)
    assert data["net_s"] == pytest.approx(data["saved_s"] - data["canary_s"], abs=0.2)


def test_a_trial_that_ended_on_the_canary_shows_how_to_start_the_canary(ten: tuple[Bench, RunRecord]) -> None:
    _, record = ten
    named = {record.cells[trial.cell_id].label(): trial.trial for trial in record.trials.values()}
    broken = views.show(record, named["vllm emulation tp1"])
    assert "/canary" in views.show_text(broken, "command")
    assert "--moe-backend emulation" in views.show_text(broken, "command")
    assert "canary    garbage: degenerate 4" in views.show_text(broken, None)
    spared = views.show(record, named["vllm cutlass tp1"])
    assert spared["canary"]["label"] == "vllm auto tp1"
    healthy = views.show_text(views.show(record, named["vllm marlin tp1"]), None)
    assert "canary    right" in healthy
    assert "/real-model" in healthy


def test_a_run_without_a_canary_says_nothing_about_one(bench: Bench) -> None:
    preflight = Preflight(canary_of=lambda cell: "no canary could be built: no torch", check=bench.check)
    record = bench.run([bench.cell()], preflight=preflight)
    assert why(verdicts(record)["vllm auto tp1"])[0] == "PASS"
    assert [start[0] for start in bench.starts()] == ["real-model"]
    assert views.model(record).saving is None
    (trial,) = record.trials.values()
    (checked,) = [item for item in trial.observed if isinstance(item, CanaryChecked)]
    assert (checked.verdict, checked.figures["why"]) == ("unchecked", "no canary could be built: no torch")


def test_cells_of_one_configuration_share_one_canary_launch(bench: Bench) -> None:
    """As do further launches of a cell: both are looked up by what is launched."""
    bench.run([bench.cell(max_model_len=512), bench.cell(max_model_len=2048, name="longer")])
    assert [start[0] for start in bench.starts()] == ["canary", "real-model", "real-model"]
    assert bench.checks == 1


def test_a_single_named_backend_costs_no_launch_of_auto(bench: Bench) -> None:
    bench.run([bench.cell("marlin")])
    assert [start[:2] for start in bench.starts()] == [("canary", "marlin"), ("real-model", "marlin")]


def test_two_named_backends_are_worth_a_launch_of_auto(bench: Bench) -> None:
    record = bench.run([bench.cell("cutlass"), bench.cell("flashinfer_trtllm")])
    assert [start[:2] for start in bench.starts()] == [("canary", "auto")]
    cause = verdicts(record)["vllm flashinfer_trtllm tp1"].cause
    assert cause is not None
    assert cause.log is not None
    assert cause.log.endswith("canary-auto.log")


def test_what_one_layout_rules_out_says_nothing_about_another(bench: Bench) -> None:
    cells = [bench.cell(), bench.cell("cutlass", parallelism=Parallelism(tp=2))]
    bench.run(cells)
    assert ("canary", "cutlass", 2, False) in bench.starts()


def test_a_server_that_says_nothing_checkable_lets_the_cell_run(bench: Bench) -> None:
    preflight = Preflight(
        canary_of=lambda cell: bench.root / "canary",
        check=lambda url, model, canary: CanaryChecked(verdict="unchecked", figures={"why": "no log-probabilities"}),
    )
    record = bench.run([bench.cell()], preflight=preflight)
    assert verdicts(record)["vllm auto tp1"].outcome is Outcome.PASS
    assert [start[0] for start in bench.starts()] == ["canary", "real-model"]


def test_numbers_that_go_wrong_because_the_server_dies_are_told_as_its_death(bench: Bench) -> None:
    preflight = Preflight(
        canary_of=lambda cell: bench.root / "canary",
        check=lambda url, model, canary: CanaryChecked(verdict="degraded", figures={}),
    )
    record = bench.run([bench.cell(env={"FAKE_VLLM_DIES_AFTER": "1.5"})], preflight=preflight)
    verdict = verdicts(record)["vllm auto tp1"]
    assert why(verdict) == ("FAIL", "canary", "cutlass-tma-ws-grouped-gemm-init")
    assert [start[0] for start in bench.starts()] == ["canary"]


def test_a_resumed_sweep_asks_the_canary_nothing_twice(bench: Bench) -> None:
    cells = [bench.cell(), bench.cell("cutlass")]
    first = bench.sweep(cells[:1])
    go(first)
    first.log.close()
    again = bench.sweep(cells)
    restore(again, read(again.run))
    go(again)
    again.log.close()
    assert [start[:2] for start in bench.starts()] == [("canary", "auto"), ("real-model", "auto")]
    found = saving(read(again.run))
    assert found is not None
    assert (found.launches, found.failed, found.ruled_out) == (1, 1, 1)


def test_a_canary_of_another_shape_is_not_held_against_the_cell(bench: Bench) -> None:
    preflight = Preflight(canary_of=lambda cell: bench.root / "canary", check=bench.check, like_the_model=False)
    heads, kernel = died_of("tp-heads-not-divisible"), died_of("cutlass-tma-ws-grouped-gemm-init")
    assert preflight.taken(heads).verdict == "unchecked"
    assert preflight.taken(kernel).verdict == "failed"
    assert replace(preflight, like_the_model=True).taken(heads).verdict == "failed"


REFUSED = "does not support the deployment configuration since kernel does not support"


@pytest.mark.parametrize(
    ("reason", "other_shape", "same_shape"),
    [
        ("128 hidden dim is not supported", "unchecked", "failed"),
        ("routing method RoutingMethodType.Renormalize", "unchecked", "failed"),
        ("hash routing", "unchecked", "failed"),
        ("MoEActivation.SILU activation", "unchecked", "failed"),
        ("current device cuda", "failed", "failed"),
        ("quantization scheme QuantKey(f8e4m3)xNone", "failed", "failed"),
    ],
)
def test_a_refusal_for_the_canarys_own_shape_rules_no_backend_out(
    bench: Bench, reason: str, other_shape: str, same_shape: str
) -> None:
    """Neither read off another launch nor said by the backend's own."""
    line = f"ERROR ValueError: Unquantized MoE backend CUTLASS {REFUSED} {reason}."
    died = CanaryChecked(verdict="failed", cause=Cause(id="moe-backend-rejected", means="", line=line))
    for like, wanted in ((False, other_shape), (True, same_shape)):
        preflight = Preflight(canary_of=lambda cell: bench.root, check=bench.check, like_the_model=like)
        assert preflight.taken(died).verdict == wanted
        auto = CanaryChecked(verdict="right")
        known = Refusal(reason=f"kernel does not support {reason}", line_no=1, line=line, backend="cutlass")
        preflight.restore(
            [CanaryLaunch(key="k", layout="one", label="", checked=auto, seconds=1.0, log="", refusals=(known,))]
        )
        ruling = preflight._refusal(bench.cell("cutlass"), "one")
        assert (ruling.verdict if ruling else "unchecked") == wanted


def died_of(cause: str) -> CanaryChecked:
    return CanaryChecked(verdict="failed", cause=Cause(id=cause, means=""))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"url": "http://127.0.0.1:1"}, "already up"),
        ({"speculative": Speculative(method="eagle3", tokens=2, model="draft")}, "draft model"),
        ({"engine": "command", "command": ("serve", "--port", "{port}")}, "{model}"),
        ({"model": "CANARY"}, "canary itself"),
    ],
)
def test_where_no_canary_fits_the_cell_is_tried_at_once(bench: Bench, changes: dict[str, Any], told: str) -> None:
    canary = bench.root / "canary"
    if changes.get("model") == "CANARY":
        changes = {"model": str(canary)}
    preflight = Preflight(canary_of=lambda cell: canary, check=bench.check)
    sweep = bench.sweep([bench.cell()])
    request = Request(
        run_id="r",
        trial="t-1",
        cell=replace(bench.cell(), **changes),
        matrix=sweep.matrix,
        gpus=(),
        log=bench.root / "x",
    )
    found = preflight.run(request, sweep.tools, None)  # type: ignore[arg-type]
    assert found.verdict == "unchecked"
    assert told in found.figures["why"]
    assert bench.starts() == []


def test_the_canarys_cell_differs_from_the_real_one_in_model_length_and_level_only(bench: Bench) -> None:
    cell = bench.cell("Marlin", max_model_len=65536, gpu_memory_utilization=0.9, name="mine")
    small = canary_cell(cell, Path("canary"))
    assert (small.model, small.max_model_len, small.name) == (str(Path("canary").absolute()), 1024, None)
    assert small.moe_backend == "marlin"
    assert replace(small, model=cell.model, max_model_len=65536, name="mine", moe_backend="Marlin") == cell
    auto = canary_cell(bench.cell(), Path("canary"))
    assert dict(auto.env)["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert canary_cell(auto, Path("canary")) == auto
