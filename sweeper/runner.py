"""The sweep: which cell next, one trial at a time, the record always ahead of the memory.

A trial without its `trial_finished` event means that sweeper died in it: it is closed as ABORTED on resume and the cell
is tried again, as it is after INCONCLUSIVE. Other finished trials (PASS, FAIL, SKIP) are never repeated.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.core import codec, judge
from sweeper.core.errors import RecordUnwritable, SweeperError
from sweeper.core.observations import HarnessFault, Interrupted, Observation
from sweeper.core.ports import Clock
from sweeper.core.values import Cell, Expansion, Matrix
from sweeper.core.verdicts import Finding, Outcome, Verdict
from sweeper.recorder import Progress, Recorder
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog
from sweeper.store.record import RunRecord
from sweeper.store.rundir import RunDir
from sweeper.trial import Request, Tools, run_trial


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One call of `sweeper run`, new or resumed."""

    run: RunDir
    matrix: Matrix
    expansion: Expansion
    tools: Tools
    log: EventLog
    clock: Clock
    progress: Progress
    gpus: tuple[str, ...]
    next_cells: Callable[[Mapping[str, Sequence[Verdict]]], Sequence[str]]
    """Verdicts so far by cell id -> the cells to launch next, in order; empty: the sweep is over."""
    compare: Callable[[Cell, Verdict], tuple[Finding, ...]]
    """Requested against effective."""
    done: dict[str, list[Verdict]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)


def restore(sweep: Sweep, record: RunRecord) -> None:
    """Take over the verdicts and the canary's answers of a record; close trials that were left open."""
    if sweep.tools.preflight:
        sweep.tools.preflight.restore(record.canaries)
    for trial in record.trials.values():
        sweep.attempts[trial.cell_id] = max(sweep.attempts.get(trial.cell_id, 0), trial.attempt)
        if trial.verdict is None:
            recorder = Recorder(sweep.log, sweep.run, trial.trial, sweep.clock, sweep.progress)
            why = Interrupted(why="sweeper ended in the middle of this trial")
            recorder.observe(why)
            cell = record.cells[trial.cell_id]
            verdict = judge.judge(cell, trial.cell_id, trial.trial, [*trial.observed, why])
            recorder.event("trial_finished", {"verdict": codec.dump(verdict)})
            sweep.done.setdefault(trial.cell_id, []).append(verdict)
        elif _says_something(trial.verdict):
            sweep.done.setdefault(trial.cell_id, []).append(trial.verdict)


def _says_something(verdict: Verdict) -> bool:
    """Whether it is about the cell; what is not is tried again on resume, like ABORTED.

    INCONCLUSIVE is not, nor are GPUs that were missing then, nor a launch with a window that does not hold: its other
    points stay in the record and count.
    """
    absent = verdict.cause is not None and verdict.cause.id == "gpus-missing"
    return verdict.outcome is not Outcome.INCONCLUSIVE and not verdict.unproven and not absent


def go(sweep: Sweep) -> None:
    """Until nothing is left. KeyboardInterrupt is recorded, then raised again."""
    cells = {planned.cell_id: planned.cell for planned in sweep.expansion.cells}
    while True:
        batch = [cell_id for cell_id in sweep.next_cells(sweep.done) if cell_id in cells]
        if not batch:
            break
        for number, cell_id in enumerate(batch, 1):
            _one(sweep, cell_id, cells[cell_id], number, len(batch))
    sweep.log.append("run_finished", {}, utc=sweep.clock.utc(), mono_s=sweep.clock.mono_s())
    sweep.log.sync()


def _one(sweep: Sweep, cell_id: str, cell: Cell, number: int, total: int) -> None:
    attempt = sweep.attempts.get(cell_id, 0) + 1
    sweep.attempts[cell_id] = attempt
    trial = f"{cell_id}-{attempt}"
    sweep.progress.trial(number, total, cell.label(), f"launch {attempt}")
    recorder = Recorder(sweep.log, sweep.run, trial, sweep.clock, sweep.progress)
    recorder.event("trial_started", {"cell_id": cell_id, "attempt": attempt, "label": cell.label()})
    begun_s = sweep.clock.mono_s()
    request = Request(
        run_id=sweep.run.run_id,
        trial=trial,
        cell=cell,
        matrix=sweep.matrix,
        gpus=sweep.gpus[: cell.parallelism.world_size],
        log=sweep.run.trial(trial) / "server.log",
    )
    try:
        run_trial(request, sweep.tools, recorder)
    except KeyboardInterrupt:
        recorder.observe(Interrupted(why="stopped by a person"))
        _finish(sweep, recorder, cell_id, cell, trial, begun_s)
        raise
    except RecordUnwritable as error:
        # Where there is room for its verdict, the cell has one; the sweep ends in any case.
        with contextlib.suppress(RecordUnwritable):
            recorder.observe(HarnessFault(problem=error.message, hint=error.hint or ""))
            _finish(sweep, recorder, cell_id, cell, trial, begun_s)
        raise
    except SweeperError as error:
        recorder.observe(HarnessFault(problem=error.message, hint=error.hint or ""))
    except Exception as error:  # a fault of ours must not cost the other cells, nor be blamed on this one
        rundir.write_bytes(sweep.run.trial(trial) / "harness.txt", traceback.format_exc().encode())
        told = f"sweeper itself failed in this trial: {type(error).__name__}: {error}"
        recorder.observe(HarnessFault(problem=told, hint=f"Please report it with trials/{trial}/harness.txt"))
    _finish(sweep, recorder, cell_id, cell, trial, begun_s)


def _finish(sweep: Sweep, recorder: Recorder, cell_id: str, cell: Cell, trial: str, begun_s: float) -> None:
    elapsed_s = round(sweep.clock.mono_s() - begun_s, 3)
    verdict = judge_trial(cell, cell_id, trial, recorder.observed, sweep.compare, elapsed_s)
    recorder.event("trial_finished", {"verdict": codec.dump(verdict)})
    sweep.log.sync()
    sweep.done.setdefault(cell_id, []).append(verdict)
    sweep.progress.verdict(verdict, elapsed_s)


def judge_trial(
    cell: Cell,
    cell_id: str,
    trial: str,
    observed: Sequence[Observation],
    compare: Callable[[Cell, Verdict], tuple[Finding, ...]],
    elapsed_s: float | None,
) -> Verdict:
    """A verdict with the findings of requested against effective."""
    verdict = judge.judge(cell, cell_id, trial, observed, elapsed_s=elapsed_s)
    return judge.with_findings(verdict, *compare(cell, verdict))


def plain_rounds(order: Sequence[str], launches: int) -> Callable[[Mapping[str, Sequence[Verdict]]], list[str]]:
    """Every cell once, then those that did not fail again, until each has `launches`. A failed cell stays failed."""

    def following(done: Mapping[str, Sequence[Verdict]]) -> list[str]:
        rounds = {cell_id: _wanted(done.get(cell_id, ()), launches) for cell_id in order}
        open_rounds = [number for number in rounds.values() if number is not None]
        if not open_rounds:
            return []
        # One round at a time, so that launches of one cell are spread over the run's heat and drift.
        lowest = min(open_rounds)
        return [cell_id for cell_id in order if rounds[cell_id] == lowest]

    return following


def _wanted(verdicts: Sequence[Verdict], launches: int) -> int | None:
    """Launches that count so far when one more is wanted; None when the cell is settled."""
    if any(verdict.outcome in (Outcome.FAIL, Outcome.SKIP) for verdict in verdicts):
        return None
    counted = sum(verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE) for verdict in verdicts)
    return None if counted >= launches else counted
