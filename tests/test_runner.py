"""Whole sweeps over scripted servers: real processes, real HTTP, no model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper import tools
from sweeper.app import exit_code
from sweeper.clock import SystemClock
from sweeper.core.identity import cell_id
from sweeper.core.observations import Observation
from sweeper.core.values import Cell, Deadlines, Expansion, Hardware, Matrix, PlannedCell, Policy, Workload
from sweeper.core.verdicts import Finding, Outcome, Phase, Verdict
from sweeper.runner import Sweep, go, plain_rounds, restore
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog
from sweeper.store.record import RunRecord, read
from tests.servers.argv import scripted
from tests.servers.scripted import Script, ScriptedServer

CUTLASS = (
    "(EngineCore_DP0 pid=7) ERROR 11-21 10:00:00 [core.py:10] RuntimeError: [TensorRT-LLM][ERROR] Assertion failed: "
    "Failed to initialize cutlass TMA WS grouped gemm. Error: Error Internal "
    "(/build/cutlass_kernel_file_gemm_grouped_sm120_M128_BS_group0.generated.cu:60)"
)


class Quiet:
    """Keeps what a person would have seen."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def trial(self, number: int, total: int, label: str, launch: str) -> None:
        self.lines.append(f"{number}/{total} {label} {launch}")

    def phase(self, phase: Phase, detail: str) -> None:
        pass

    def observed(self, item: Observation) -> None:
        pass

    def verdict(self, verdict: Verdict, elapsed_s: float) -> None:
        self.lines.append(verdict.outcome.value)

    def note(self, text: str) -> None:
        self.lines.append(text)


def server(name: str, *flags: str) -> Cell:
    """A cell whose server is the scripted one."""
    return Cell(engine="command", model="m", name=name, command=scripted(f"--cell={name}", *flags))


def matrix_of(cells: list[Cell], launches: int = 1, **deadlines: float) -> tuple[Matrix, Expansion]:
    limits = Deadlines(**{"ready_s": 20.0, "stop_s": 3.0, **deadlines})
    matrix = Matrix(
        name="scripted",
        path="scripted.yaml",
        cells=tuple(cells),
        author_excluded=(),
        workloads=(Workload(isl=16, osl=64, concurrency=(1, 2), window_s=0.3, warmup_s=0.0),),
        policy=Policy(launches=launches, deadlines=limits),
        hardware=Hardware(),
    )
    planned = tuple(PlannedCell(cell=cell, cell_id=cell_id(cell)) for cell in cells)
    return matrix, Expansion(cells=planned, excluded=())


def nothing(cell: Cell, verdict: Verdict) -> tuple[Finding, ...]:
    return ()


def sweep_of(
    tmp_path: Path, cells: list[Cell], *, launcher: str = "process", **options: Any
) -> tuple[Sweep, rundir.RunDir]:
    matrix, expansion = matrix_of(cells, **options)
    folder = tmp_path / "run"
    run = rundir.RunDir(folder) if folder.exists() else rundir.create(tmp_path, "run", b"", {"schema": 1})
    clock = SystemClock()
    sweep = Sweep(
        run=run,
        matrix=matrix,
        expansion=expansion,
        tools=tools.build(matrix, launcher, (), clock, lambda text: None),
        log=EventLog(run.events),
        clock=clock,
        progress=Quiet(),
        gpus=(),
        next_cells=plain_rounds([item.cell_id for item in expansion.cells], matrix.policy.launches),
        compare=nothing,
    )
    from sweeper.core import codec

    planned = [{"id": item.cell_id, "cell": codec.dump(item.cell)} for item in expansion.cells]
    sweep.log.append("planned", {"cells": planned, "excluded": []}, utc=clock.utc(), mono_s=clock.mono_s())
    return sweep, run


def swept(tmp_path: Path, cells: list[Cell], **options: Any) -> RunRecord:
    sweep, run = sweep_of(tmp_path, cells, **options)
    go(sweep)
    sweep.log.close()
    return read(run)


def only_verdict(record: RunRecord) -> Verdict:
    (trial,) = record.trials.values()
    assert trial.verdict is not None
    return trial.verdict


def test_a_healthy_server_passes_with_its_rate_and_its_evidence(tmp_path: Path) -> None:
    record = swept(tmp_path, [server("healthy")])
    verdict = only_verdict(record)
    assert verdict.outcome is Outcome.PASS, verdict.cause
    assert [point.concurrency for point in verdict.points] == [1, 2]
    rate = verdict.points[0].decode_tok_s
    assert rate is not None
    assert 0 < rate < 440
    (folder,) = (record.run.path / "trials").iterdir()
    assert {"server.log", "plan.json", "requests.jsonl.gz"} <= {path.name for path in folder.iterdir()}
    assert "scripted server on" in (folder / "server.log").read_text()


def test_a_rung_beyond_the_context_costs_no_other_rung(tmp_path: Path) -> None:
    sweep, run = sweep_of(tmp_path, [server("short", "--context", "512")])
    rungs = tuple(replace(sweep.matrix.workloads[0], name=f"ctx{n}", isl=n, concurrency=(1,)) for n in (16, 4096))
    sweep.matrix = replace(sweep.matrix, workloads=rungs)
    go(sweep)
    sweep.log.close()
    verdict = only_verdict(read(run))
    assert (verdict.outcome, verdict.unproven) == (Outcome.PASS, ())
    assert [point.isl for point in verdict.sound] == [16]
    assert exit_code(read(run)) == 0


def test_a_window_that_does_not_hold_costs_no_other_and_is_tried_again_on_resume(tmp_path: Path) -> None:
    """Two streams never decode together on a server that answers one at a time; one stream does."""
    record = swept(tmp_path, [server("serial", "--serial")])
    verdict = only_verdict(record)
    assert verdict.outcome is Outcome.PASS, verdict.cause
    assert [point.concurrency for point in verdict.sound] == [1]
    assert "each answer ended before the next began" in str(verdict.unproven[0].against)
    assert exit_code(record) == 1
    sweep, _ = sweep_of(tmp_path, [server("serial", "--serial")])
    restore(sweep, record)
    assert sweep.done == {}


def test_trials_on_a_server_that_keeps_running_share_no_prompt(tmp_path: Path) -> None:
    """Its prefix cache would answer the second one's prefill. Fresh servers are all asked the same."""
    with ScriptedServer(Script(rate=1000, text="prose", model="m")) as up:
        record = swept(tmp_path, [Cell(engine="vllm", model="m", url=up.url)], launcher="attach", launches=2)
        causes = [t.verdict.cause for t in record.trials.values() if t.verdict]
        assert causes == [None, None]
        asked = [str(one["asked"].get("prompt")) for one in up.tally.requests if one["asked"].get("stream")]
    assert len(asked) == len(set(asked))
    seeds = {point.seed for trial in record.trials.values() if trial.verdict for point in trial.verdict.points}
    assert len(seeds) == 2
    fresh = swept(tmp_path / "fresh", [server("a")], launches=2)
    assert {point.seed for trial in fresh.trials.values() if trial.verdict for point in trial.verdict.points} == {0}


def test_a_kernel_failure_line_ends_a_server_that_would_hang_for_an_hour(tmp_path: Path) -> None:
    record = swept(tmp_path, [server("cutlass", "--hang", "--log-line", f"0.5:{CUTLASS}")])
    verdict = only_verdict(record)
    assert (verdict.outcome, verdict.phase) == (Outcome.FAIL, Phase.READY)
    assert verdict.cause is not None
    assert verdict.cause.id == "cutlass-tma-ws-grouped-gemm-init"
    assert verdict.cause.line_no == 1
    assert verdict.cause.log is not None
    assert verdict.elapsed_s is not None
    assert verdict.elapsed_s < 6


def test_one_broken_cell_leaves_the_others_alone(tmp_path: Path) -> None:
    cells = [server("dies", "--hang", "--exit-after", "0.2", "--exit-code", "3"), server("lives")]
    record = swept(tmp_path, cells)
    outcomes = [trial.verdict.outcome for trial in record.trials.values() if trial.verdict]
    assert outcomes == [Outcome.FAIL, Outcome.PASS]


def test_an_unexplained_death_says_so(tmp_path: Path) -> None:
    verdict = only_verdict(swept(tmp_path, [server("dies", "--hang", "--exit-after", "0.2", "--exit-code", "3")]))
    assert verdict.cause is not None
    assert verdict.cause.id == "unknown-exit"


def test_garbage_fails_before_anything_is_timed(tmp_path: Path) -> None:
    verdict = only_verdict(swept(tmp_path, [server("garbage", "--text", "!!!!")]))
    assert (verdict.outcome, verdict.phase, verdict.points) == (Outcome.FAIL, Phase.SANITY, ())
    assert verdict.cause is not None
    assert verdict.cause.id == "garbage-output"


def test_a_server_that_never_becomes_ready_meets_the_deadline(tmp_path: Path) -> None:
    verdict = only_verdict(swept(tmp_path, [server("mute", "--hang", "--log-line", "0:waiting")], ready_s=0.6))
    assert verdict.cause is not None
    assert verdict.cause.id == "ready-timeout"
    assert "waiting" in verdict.cause.means


def test_a_server_at_work_on_its_first_answer_meets_the_deadline_and_not_a_timeout_of_ours(tmp_path: Path) -> None:
    slow = server("slow", "--ttft-ms", "60000")
    verdict = only_verdict(swept(tmp_path, [slow], first_answer_s=0.6))
    assert (verdict.outcome, verdict.phase) == (Outcome.FAIL, Phase.READY)
    assert verdict.cause is not None
    assert verdict.cause.id == "ready-timeout"
    assert "Last line: scripted server" in verdict.cause.means
    assert "policy.deadlines" in verdict.cause.try_


def test_healthy_and_dying_on_the_first_request_is_not_ready(tmp_path: Path) -> None:
    verdict = only_verdict(swept(tmp_path, [server("liar", "--status", "500")]))
    assert (verdict.outcome, verdict.phase) == (Outcome.FAIL, Phase.READY)


def test_a_program_that_does_not_exist_is_a_verdict(tmp_path: Path) -> None:
    cell = Cell(engine="command", model="m", command=("/nowhere/to/be/found", "--port", "{port}"))
    verdict = only_verdict(swept(tmp_path, [cell]))
    assert (verdict.outcome, verdict.phase) == (Outcome.FAIL, Phase.LAUNCH)


def test_a_stream_that_breaks_off_is_recorded_and_not_ranked(tmp_path: Path) -> None:
    verdict = only_verdict(swept(tmp_path, [server("breaks", "--disconnect-after", "20")]))
    assert verdict.outcome is not Outcome.PASS


def test_launches_are_interleaved_and_a_failed_cell_is_not_repeated(tmp_path: Path) -> None:
    cells = [server("a"), server("b", "--hang", "--exit-after", "0.1"), server("c")]
    sweep, run = sweep_of(tmp_path, cells, launches=2)
    go(sweep)
    names = {item.cell_id: item.cell.name for item in sweep.expansion.cells}
    assert [names[trial.cell_id] for trial in read(run).trials.values()] == ["a", "b", "c", "a", "c"]


def test_resuming_closes_the_open_trial_and_repeats_nothing_that_finished(tmp_path: Path) -> None:
    cells = [server("a"), server("b")]
    sweep, run = sweep_of(tmp_path, cells[:1])
    go(sweep)
    first, second = (cell_id(cell) for cell in cells)
    # sweeper died in the first trial of b, in the middle of a line
    sweep.log.append("planned", {"cells": [], "excluded": []}, utc="", mono_s=0.0)
    started = {"cell_id": second, "attempt": 1, "label": "b"}
    sweep.log.append("trial_started", started, utc="", mono_s=0.0, trial=f"{second}-1")
    sweep.log.close()
    with open(run.events, "ab") as file:
        file.write(b'{"v": 1, "seq": 99, "utc": "')
    again, run = sweep_of(tmp_path, cells)
    restore(again, read(run))
    go(again)
    record = read(run)
    outcomes = {trial.trial: trial.verdict.outcome for trial in record.trials.values() if trial.verdict}
    assert outcomes == {f"{first}-1": Outcome.PASS, f"{second}-1": Outcome.ABORTED, f"{second}-2": Outcome.PASS}
    assert record.torn == 1
    assert record.finished


def test_a_missing_model_folder_is_a_verdict_and_starts_nothing(tmp_path: Path) -> None:
    cell = Cell(engine="vllm", model=str(tmp_path / "nowhere"), python=sys.executable)
    record = swept(tmp_path, [cell, server("lives")])
    first, second = (trial.verdict for trial in record.trials.values())
    assert first is not None
    assert first.cause is not None
    assert (first.outcome, first.phase, first.cause.id) == (Outcome.FAIL, Phase.LAUNCH, "model-not-found")
    assert second is not None
    assert second.outcome is Outcome.PASS


def test_a_fault_of_our_own_is_inconclusive_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep, run = sweep_of(tmp_path, [server("a"), server("b")])
    calls = []

    def measure(*args: Any, **named: Any) -> Any:
        calls.append(1)
        raise ZeroDivisionError("of ours")

    sweep.tools = replace(sweep.tools, measure=measure)
    go(sweep)
    verdicts = [trial.verdict for trial in read(run).trials.values() if trial.verdict]
    assert [(verdict.outcome, verdict.cause and verdict.cause.id) for verdict in verdicts] == [
        (Outcome.INCONCLUSIVE, "harness"),
        (Outcome.INCONCLUSIVE, "harness"),
    ]
    (first, _) = sorted((run.path / "trials").iterdir())
    assert "ZeroDivisionError" in (first / "harness.txt").read_text()
