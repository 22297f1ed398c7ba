"""GPU traces of whole trials: kept beside the trial, judged again from there. A board of ours, a scripted server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import app, tools
from sweeper.clock import SystemClock
from sweeper.core import codec
from sweeper.core.gputrace import GpuFacts, GpuSample
from sweeper.core.identity import cell_id
from sweeper.core.observations import MachineBefore, MachineWatched
from sweeper.core.values import Cell, Deadlines, Expansion, Hardware, Matrix, PlannedCell, Policy, Workload
from sweeper.core.verdicts import Outcome
from sweeper.gpuwindows import counting, file_name
from sweeper.probes.machine import SamplingMeter, read_traces, write_traces
from sweeper.report.progress import Console
from sweeper.runner import Sweep, go, plain_rounds
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog
from sweeper.store.record import RunRecord, TrialRecord, read
from tests.servers.argv import scripted

CELL = Cell(
    engine="command",
    model="m",
    name="one",
    command=scripted(),
)


class Board:
    """100 W and a counter that follows. `pids`: who is on it, given the cell's own process."""

    facts = (GpuFacts(gpu="0", power_limit_w=200.0, power_source="instant"),)

    def __init__(self, pids: tuple[int, ...] | None = None) -> None:
        self.pids = pids

    def sample(self, gpu: int, t_s: float, *, slow: bool, processes: bool) -> GpuSample:
        return GpuSample(
            t_s=t_s, gpu=0, power_w=100.0, energy_mj=round(t_s * 100_000), reasons=0 if slow else None, pids=self.pids
        )

    def close(self) -> None:
        """Holds nothing."""


Pids = Callable[[Sequence[int]], tuple[int, ...]]


def swept(folder: Path, *, on_board: Pids = tuple, strangers: tuple[int, ...] = (), preset: str = "none") -> RunRecord:
    """One cell, one concurrency. `on_board`: the cell's pids -> what the driver lists."""
    workload = Workload(
        name="short/decode", preset=preset, isl=16, osl=256, concurrency=(2,), window_s=0.3, warmup_s=0, requests=2
    )
    workload = workload if preset == "energy-e2e" else replace(workload, requests=None)
    matrix = Matrix(
        name="m", path="m.yaml", cells=(CELL,), author_excluded=(), workloads=(workload,), hardware=Hardware(),
        policy=Policy(deadlines=Deadlines(ready_s=20.0, stop_s=3.0)),
    )  # fmt: skip
    run = rundir.create(folder, "run", b"", {"schema": 1})
    clock = SystemClock()

    def meter(gpus: tuple[str, ...], *, preset: str, own_pids: Any, strangers: Sequence[int]) -> SamplingMeter:
        board = Board(on_board(own_pids() or ()))
        return SamplingMeter(board, hz=200, own_pids=own_pids, strangers=strangers)

    built = tools.build(matrix, "process", (), clock, lambda text: None)
    before = built.machine(CELL, ())
    planned_cells = (PlannedCell(cell=CELL, cell_id=cell_id(CELL)),)
    sweep = Sweep(
        run=run, matrix=matrix, expansion=Expansion(cells=planned_cells, excluded=()),
        tools=replace(built, meter=meter, machine=lambda cell, gpus: replace(before, gpu_pids=strangers)),
        log=EventLog(run.events), clock=clock, progress=Console(), gpus=(),
        next_cells=plain_rounds([cell_id(CELL)], 1), compare=lambda cell, verdict: (),
    )  # fmt: skip
    planned = {"cells": [{"id": cell_id(CELL), "cell": codec.dump(CELL)}], "excluded": []}
    sweep.log.append("planned", planned, utc=clock.utc(), mono_s=clock.mono_s())
    go(sweep)
    sweep.log.close()
    return read(run)


def only(record: RunRecord) -> TrialRecord:
    (trial,) = record.trials.values()
    assert trial.verdict is not None
    return trial


def trace_file(record: RunRecord) -> Path:
    return record.run.path / "trials" / only(record).trial / file_name("short/decode", 2)


def test_a_trial_keeps_its_gpu_trace_and_can_be_judged_from_it_again(tmp_path: Path) -> None:
    record = swept(tmp_path, preset="sustained-decode")
    trial = only(record)
    assert trial.verdict is not None
    assert trial.verdict.outcome is Outcome.PASS, trial.verdict.cause
    (point,) = trial.verdict.points
    assert point.energy is not None
    assert (point.energy.mean_w, point.energy.idle_w) == (pytest.approx(100, rel=0.05), pytest.approx(100, rel=0.05))
    (trace,) = read_traces(trace_file(record))
    assert trace.tokens == pytest.approx(1000 * point.energy.joules / point.energy.joules_per_1k_tokens, rel=0.05)
    assert [type(item) for item in trial.observed if isinstance(item, MachineBefore | MachineWatched)] == [
        MachineBefore,
        MachineWatched,
    ]
    assert app.rejudge(record, (), keep=False) == []

    hot = [replace(sample, reasons=0x40) if sample.reasons == 0 else sample for sample in trace.samples]
    write_traces(trace_file(record), [replace(trace, samples=tuple(hot))])
    (change,) = app.rejudge(record, (), keep=True)
    assert "INCONCLUSIVE measure window-invalid" in change["after"]
    again = only(read(record.run))
    assert again.verdict is not None
    assert again.verdict.points[0].invalid == ("thermal slowdown in 100% of the samples",)
    assert app.rejudge(read(record.run), (), keep=False) == []


def test_every_repetition_of_an_energy_run_is_kept_and_counts(tmp_path: Path) -> None:
    record = swept(tmp_path, preset="energy-e2e")
    traces = read_traces(trace_file(record))
    assert len(traces) == 2
    assert all(trace.tokens == pytest.approx(512, abs=3) for trace in traces)
    (watched,) = (item for item in only(record).observed if isinstance(item, MachineWatched))
    assert len(watched.windows) == 2
    assert app.rejudge(record, (), keep=False) == []


def test_only_the_last_window_of_a_point_counts_where_earlier_ones_were_given_up(tmp_path: Path) -> None:
    traces = [replace(trace, tokens=n) for n, trace in enumerate([*swept_traces(tmp_path), *swept_traces(tmp_path)])]
    assert [trace.tokens for trace in counting("sustained-decode", traces)] == [1]
    assert [trace.tokens for trace in counting("energy-e2e", traces)] == [0, 1]
    assert counting("sustained-decode", []) == []


def swept_traces(folder: Path) -> Sequence[Any]:
    meter = SamplingMeter(Board(), hz=100)
    meter.start()
    meter.stop()
    return meter.traces


@pytest.mark.parametrize(
    ("on_board", "strangers", "foreign"),
    [
        (lambda own: (*own, 1), (), True),
        (lambda own: (400_000_001, 400_000_002), (400_000_002,), True),
    ],
    ids=["a stranger", "pids of a container, one before the launch"],
)
def test_the_cells_own_processes_are_not_foreign(
    tmp_path: Path, on_board: Pids, strangers: tuple[int, ...], foreign: bool
) -> None:
    verdict = only(swept(tmp_path, on_board=on_board, strangers=strangers, preset="sustained-decode")).verdict
    assert verdict is not None
    assert any("foreign process" in cause for cause in verdict.points[0].invalid) == foreign
    assert verdict.outcome is (Outcome.INCONCLUSIVE if foreign else Outcome.PASS)


def test_a_trace_that_cannot_be_written_costs_a_note_and_not_the_trial(tmp_path: Path) -> None:
    blocked = tmp_path / "run" / "trials" / f"{cell_id(CELL)}-1" / file_name("short/decode", 2)

    def on_board(own: Sequence[int]) -> tuple[int, ...]:
        blocked.mkdir(parents=True, exist_ok=True)
        return tuple(own)

    record = swept(tmp_path, on_board=on_board, preset="sustained-decode")
    assert only(record).verdict.outcome is Outcome.PASS  # type: ignore[union-attr]
    assert [note for note in record.notes if "gpu-short-decode-c2.jsonl.gz could not be written" in note]
    assert app.rejudge(record, (), keep=False) == []


def test_show_tells_what_the_machine_did(tmp_path: Path) -> None:
    record = swept(tmp_path, preset="sustained-decode")
    shown = app.show(record, only(record).trial)
    text = app.show_text(shown, None)
    assert "cores busy" in text
    assert "0 processes on the GPUs" in text
    assert "GPUs      short/decode at 2: fine, 100 W" in text
    assert [item["concurrency"] for item in shown["machine"][1:]] == [2]
