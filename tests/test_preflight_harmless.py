"""What a preflight must never do: fail a cell that would work. Every cell here passes over the real model."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import canarylaunch
from sweeper.core.canaries_args import about_kernels
from sweeper.core.errors import BadFile, LaunchFailed
from sweeper.core.observations import CanaryChecked
from sweeper.core.ports import Launcher
from sweeper.core.values import Cell
from sweeper.core.verdicts import Cause, Outcome, Verdict
from sweeper.preflight import Preflight, canary_cell
from sweeper.runner import go, restore
from sweeper.store.record import RunRecord, read
from tests.test_preflight import Bench, verdicts, why

RIGHT = CanaryChecked(verdict="right", figures={})


@dataclass
class Launchers:
    """The real launcher, whose canary launch can be refused; keeps the canary's process id."""

    real: Callable[[Cell], Launcher]
    refuse: LaunchFailed | None = None
    pids: list[int] = field(default_factory=list)
    name: str = "process"

    def of(self, cell: Cell) -> Any:
        return self if cell.model.endswith("canary") else self.real(cell)

    def start(self, plan: Any, **options: Any) -> Any:
        if self.refuse:
            raise self.refuse
        handle = self.real(Cell(engine="vllm", model="m", python="python")).start(plan, **options)
        self.pids.append(handle.record.pid or 0)
        return handle


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path).prepare()


def swept(
    bench: Bench, check: Callable[[Launchers], CanaryChecked], *, refuse: LaunchFailed | None = None, **options: Any
) -> tuple[Verdict, str]:
    """One cell through a whole sweep; its verdict, and why the canary was left unchecked."""
    launchers: list[Launchers] = []
    preflight = Preflight(
        canary_of=lambda cell: bench.root / "canary", check=lambda url, model, canary: check(launchers[0])
    )
    sweep = bench.sweep([bench.cell()], preflight=preflight, **options)
    launchers.append(Launchers(real=sweep.tools.launcher, refuse=refuse))
    sweep.tools = replace(sweep.tools, launcher=launchers[0].of)
    go(sweep)
    sweep.log.close()
    record: RunRecord = read(sweep.run)
    trial = next(iter(record.trials.values()))
    found = [item for item in trial.observed if isinstance(item, CanaryChecked) and item.where == "preflight"]
    return verdicts(record)["vllm auto tp1"], found[0].figures.get("why", "") if found else ""


def raising(error: Exception) -> Callable[[Launchers], CanaryChecked]:
    def check(launchers: Launchers) -> CanaryChecked:
        raise error

    return check


@pytest.mark.parametrize("error", [KeyError("choices"), OSError(28, "No space left"), BadFile("golden", "damaged")])
def test_a_check_that_breaks_by_itself_lets_the_cell_run(bench: Bench, error: Exception) -> None:
    verdict, told = swept(bench, raising(error))
    assert verdict.outcome is Outcome.PASS
    assert told


def test_a_check_that_is_only_slow_lets_the_cell_run(bench: Bench) -> None:
    def slow(launchers: Launchers) -> CanaryChecked:
        threading.Event().wait(0.2)
        return RIGHT

    verdict, told = swept(bench, slow, canary_s=0.05)
    assert verdict.outcome is Outcome.PASS
    assert "the server answers" in told


def test_a_server_that_hangs_in_the_check_fails_the_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: no answer to one token is no slowness."""
    monkeypatch.setattr(canarylaunch, "STILL_ALIVE_S", 0.3)

    def hang(launchers: Launchers) -> CanaryChecked:
        os.kill(launchers.pids[0], signal.SIGSTOP)
        threading.Event().wait(0.2)
        return RIGHT

    verdict, _ = swept(bench, hang, canary_s=0.05)
    assert why(verdict) == ("FAIL", "canary", "canary-timeout")
    assert [start[0] for start in bench.starts()] == ["canary"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_somebody_ended_lets_the_cell_run(bench: Bench, number: signal.Signals) -> None:
    def killed(launchers: Launchers) -> CanaryChecked:
        os.kill(launchers.pids[0], number)
        threading.Event().wait(2.0)
        return RIGHT

    verdict, told = swept(bench, killed)
    assert verdict.outcome is Outcome.PASS
    assert "ended from outside" in told


def test_a_canary_that_cannot_even_be_started_lets_the_cell_run(bench: Bench) -> None:
    verdict, told = swept(bench, lambda launchers: RIGHT, refuse=LaunchFailed("port-in-use", "no free port"))
    assert verdict.outcome is Outcome.PASS
    assert "no free port" in told


@pytest.mark.parametrize(
    "cause", ["model-architecture-unsupported", "transformers-too-old", "unsupported-quantization"]
)
def test_what_is_wrong_with_the_canarys_own_files_is_not_held_against_the_model(bench: Bench, cause: str) -> None:
    """An old engine may know the model's class and not that of its text part."""
    found = CanaryChecked(verdict="failed", cause=Cause(id=cause, means=""))
    for like in (True, False):
        taken = Preflight(canary_of=lambda cell: bench.root, check=bench.check, like_the_model=like).taken(found)
        assert taken.verdict == "unchecked"


def test_the_canary_gets_the_arguments_that_choose_kernels_and_no_others(bench: Bench) -> None:
    about_text = ("--reasoning-parser", "qwen3", "--tool-call-parser=hermes", "--enable-auto-tool-choice")
    files = (
        "--load_format",
        "dummy",
        "--tokenizer",
        "/m/t",
        "--lora-modules",
        "a=/x",
        "b=/y",
        "--max-model-len=262144",
    )
    kernels = ("--enforce-eager", "--kv-cache-dtype", "fp8", "--compilation-config={}", "-O3", "--block-size", "16")
    assert about_kernels((*about_text, *kernels[:3], *files, *kernels[3:])) == kernels
    small = canary_cell(bench.cell(extra_args=(*about_text, *kernels)), bench.root / "canary")
    assert small.extra_args == kernels


def test_a_draft_model_in_the_authors_own_arguments_does_not_fit_a_canary(bench: Bench) -> None:
    bench.run([bench.cell(extra_args=("--speculative-config", '{"method": "eagle3", "model": "/draft"}'))])
    assert [start[0] for start in bench.starts()] == ["real-model"]


def test_a_short_cell_whose_batches_are_bounded_keeps_its_length(bench: Bench) -> None:
    bounded = bench.cell(max_model_len=512, extra_args=("--max-num-batched-tokens", "512"))
    assert canary_cell(bounded, bench.root).max_model_len == 512
    assert canary_cell(replace(bounded, max_model_len=8192), bench.root).max_model_len == 1024


def test_an_interrupt_ends_the_canary_and_says_nothing_about_the_cell(bench: Bench) -> None:
    interrupts = [True]
    launchers: list[Launchers] = []

    def check(url: str, model: str, canary: Path) -> CanaryChecked:
        if interrupts:
            interrupts.pop()
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.2)
        return RIGHT

    preflight = Preflight(canary_of=lambda cell: bench.root / "canary", check=check)
    first = bench.sweep([bench.cell()], preflight=preflight)
    launchers.append(Launchers(real=first.tools.launcher))
    first.tools = replace(first.tools, launcher=launchers[0].of)
    with pytest.raises(KeyboardInterrupt):
        go(first)
    first.log.close()
    with pytest.raises(ProcessLookupError):
        os.kill(launchers[0].pids[0], 0)
    assert verdicts(read(first.run))["vllm auto tp1"].outcome is Outcome.ABORTED
    again = bench.sweep([bench.cell()], preflight=Preflight(canary_of=lambda cell: bench.root / "canary", check=check))
    restore(again, read(again.run))
    go(again)
    again.log.close()
    assert [start[0] for start in bench.starts()] == ["canary", "canary", "real-model"]
    assert verdicts(read(again.run))["vllm auto tp1"].outcome is Outcome.PASS
