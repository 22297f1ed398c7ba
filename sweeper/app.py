"""Composition root: picks adapters by name and builds a sweep. The only module that knows them all."""

from __future__ import annotations

import hashlib
import secrets
import signal
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from sweeper import __version__, tools, views
from sweeper.clock import SystemClock
from sweeper.config import load_matrix
from sweeper.core import codec, judge
from sweeper.core.errors import EnvironmentNotReady, UsageError
from sweeper.core.expand import expand, select, started_by
from sweeper.core.values import Expansion, Matrix
from sweeper.core.verdicts import Outcome
from sweeper.publications import publication_tables
from sweeper.report import export
from sweeper.report import html as html_report
from sweeper.report import text as text_report
from sweeper.report.progress import Console
from sweeper.runner import Sweep, go, judge_trial, restore
from sweeper.savings import saving
from sweeper.schedule import reference_of, scheduler
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog, Lock
from sweeper.store.record import RunRecord, read
from sweeper.store.rundir import RunDir, write_bytes
from sweeper.trial import Tools

FORMATS = ("text", "md", "csv", "json", "html")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says about a sweep."""

    matrix: Path
    logs: Path = Path("logs")
    resume: str | None = None
    only: str | None = None
    launcher: str | None = None
    image: str | None = None
    launches: int | None = None
    gpus: tuple[str, ...] | None = None
    signatures: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The record after the sweep, and the exit code it deserves."""

    record: RunRecord
    exit_code: int


def run_sweep(options: RunOptions) -> RunResult:
    """A new run, or the rest of one. Raises UsageError, EnvironmentNotReady, RecordUnusable."""
    begun = rundir.find(options.logs, options.resume) if options.resume else None
    options = _as_begun(options, begun) if begun else options
    matrix = _with_options(load_matrix(options.matrix), options)
    expansion = select(expand(matrix, tools.hardware(matrix), tools.geometry_of), options.only)
    if not expansion.cells:
        raise UsageError(
            f"nothing to run: all {len(expansion.excluded)} cells are excluded",
            hint=f"The reasons: sweeper plan {options.matrix}",
        )
    gpus = options.gpus if options.gpus is not None else tools.visible_gpus()
    _some_can_run(matrix, expansion, gpus)
    text = options.matrix.read_bytes()
    clock, console = SystemClock(), Console()
    # What they cannot be built from ends the sweep before there is a folder of it.
    adapters = tools.build(matrix, options.launcher, options.signatures, clock, console.note)
    run = _resumed(options, begun, text) if begun else _created(options, matrix, text)
    lock = Lock(run.path)
    try:
        interrupted = _sweep(replace(options, gpus=gpus), run, matrix, expansion, adapters, clock, console)
    finally:
        console.close()
        lock.release()
    record = read(run)
    saved = saving(record)
    if saved:
        console.note(saved.to_text())
    return RunResult(record=record, exit_code=130 if interrupted else exit_code(record))


def _some_can_run(matrix: Matrix, expansion: Expansion, gpus: tuple[str, ...]) -> None:
    """Raises EnvironmentNotReady where no cell can have its GPUs, before an image is fetched for nothing."""
    cells = [item.cell for item in expansion.cells]
    reasons = [tools.lacking_gpus(cell, matrix.hardware, gpus[: cell.parallelism.world_size]) for cell in cells]
    if all(reasons):
        raise EnvironmentNotReady(
            f"no cell can run here: {cells[0].label()} {reasons[0]}",
            hint=f"What works here: sweeper doctor. What the sweep would do: sweeper plan {matrix.path}",
        )


def _sweep(
    options: RunOptions,
    run: RunDir,
    matrix: Matrix,
    expansion: Expansion,
    adapters: Tools,
    clock: SystemClock,
    console: Console,
) -> bool:
    log = EventLog(run.events)
    sweep = Sweep(
        run=run,
        matrix=matrix,
        expansion=expansion,
        tools=adapters,
        log=log,
        clock=clock,
        progress=console,
        gpus=options.gpus or (),
        next_cells=scheduler(matrix, expansion),
        compare=tools.compare_requested,
    )
    try:
        _announce(sweep, options)
        if options.resume:
            console.note(tools.clean_run(run.run_id))
            restore(sweep, read(run))
        with interruptible():
            go(sweep)
        return False
    except KeyboardInterrupt:
        console.note(f"interrupted; servers are stopped. Continue: sweeper run {options.matrix} --resume {run.path}")
        return True
    finally:
        log.close()


def _announce(sweep: Sweep, options: RunOptions) -> None:
    def event(kind: str, data: dict[str, Any]) -> None:
        sweep.log.append(kind, data, utc=sweep.clock.utc(), mono_s=sweep.clock.mono_s())

    event("run_started", {"sweeper": __version__, "argv": sys.argv[1:], "gpus": list(sweep.gpus)})
    cells = [
        {"id": item.cell_id, "cell": codec.dump(item.cell), "warnings": list(item.warnings)}
        for item in sweep.expansion.cells
    ]
    excluded = [
        {"id": item.cell_id, "label": item.cell.label(), "reasons": list(item.reasons), "cell": codec.dump(item.cell)}
        for item in sweep.expansion.excluded
    ]
    reference = reference_of(sweep.matrix, sweep.expansion)
    event("planned", {"cells": cells, "excluded": excluded, "reference": reference})
    sweep.progress.note(
        f"{sweep.run.path}: {len(cells)} cell{'' if len(cells) == 1 else 's'} to run, {len(excluded)} excluded"
        + (f" (sweeper plan {options.matrix} says why)" if excluded else "")
    )


def _with_options(matrix: Matrix, options: RunOptions) -> Matrix:
    """The matrix as the command line bends it; raises UsageError for what cannot be."""
    policy = matrix.policy
    if options.launches is not None:
        if options.launches < 1:
            raise UsageError("--launches must be at least 1")
        policy = replace(policy, launches=options.launches)
    return started_by(replace(matrix, policy=policy), options.launcher, options.image)


def _created(options: RunOptions, matrix: Matrix, text: bytes) -> RunDir:
    run_id = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-{matrix.name}-{secrets.token_hex(2)}"
    facts = {
        "schema": 1,
        "sweeper": __version__,
        "matrix": matrix.name,
        "title": matrix.title or matrix.name,
        "matrix_path": str(options.matrix),
        "matrix_sha256": hashlib.sha256(text).hexdigest(),
        "host": tools.host_facts(),
        "hardware": codec.dump(matrix.hardware),
        "launcher": options.launcher,
        "image": options.image,
        "gpus": options.gpus,
        "only": options.only,
        "launches": options.launches,
    }
    return rundir.create(options.logs, run_id, text, facts)


def _as_begun(options: RunOptions, run: RunDir) -> RunOptions:
    """What the run was begun with holds for the rest of it; raises UsageError for another launcher or image."""
    facts = run.run_json()
    for name in ("launcher", "image"):
        given, then = getattr(options, name), facts.get(name)
        if given and name in facts and given != then:
            raise UsageError(
                f"{run.run_id} was begun {f'with --{name} {then}' if then else f'without --{name}'}; one run has one",
                hint=f"Leave --{name} out, or begin another run.",
            )
    gpus = options.gpus or tuple(facts.get("gpus") or ()) or None
    return replace(
        options,
        launcher=options.launcher or facts.get("launcher"),
        image=options.image or facts.get("image"),
        only=options.only or facts.get("only"),
        launches=facts.get("launches") if options.launches is None else options.launches,
        gpus=gpus,
    )


def _resumed(options: RunOptions, run: RunDir, text: bytes) -> RunDir:
    facts = run.run_json()
    if facts.get("matrix_sha256") != hashlib.sha256(text).hexdigest():
        raise UsageError(
            f"{options.matrix} is not the matrix that {run.run_id} was started with",
            hint=f"Use the copy in the run: sweeper run {run.path / 'matrix.yaml'} --resume {run.path}",
        )
    return run


class Stopped(KeyboardInterrupt):
    """A person or the system asked the run to end.

    A class of its own because CPython (3.11, `run_eval_code_obj`) remembers a plain KeyboardInterrupt that
    crossed an `exec` of text, as inside the making of a dataclass in a late import, and then ends the process by
    SIGINT instead of our exit code 130, although the exception was caught.
    """


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise Stopped; while it is on its way, further ones are told to wait for the stop.

    An exception that struck in a `__del__` or a callback is swallowed by the interpreter: then it is no longer on its
    way, and the next signal raises again.
    """
    under_way: weakref.ref[Stopped] | None = None

    def stopped() -> Stopped:
        # In a frame of its own: a name for the exception in the handler's would keep it alive after it was swallowed.
        nonlocal under_way
        fresh = Stopped()
        under_way = weakref.ref(fresh)
        return fresh

    def handle(number: int, frame: FrameType | None) -> None:
        if under_way is None or under_way() is None:
            raise stopped()
        print("stopping the server; one moment", file=sys.stderr)

    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in names}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def exit_code(record: RunRecord) -> int:
    """0 all PASS or SKIP, 1 otherwise; a cell without a verdict counts as not passed, one with a window that does not
    hold as well.
    """
    for cell_id in record.cells:
        verdicts = [trial.verdict for trial in record.of_cell(cell_id) if trial.verdict]
        if not verdicts or verdicts[-1].outcome not in (Outcome.PASS, Outcome.SKIP) or verdicts[-1].unproven:
            return 1
    return 0


def read_run(logs: Path, name: str) -> RunRecord:
    """By folder, id, unique part of it, or `last`."""
    return read(rundir.find(logs, name))


def render(record: RunRecord, form: str) -> str:
    """The report in one of FORMATS."""
    model = views.model(record, tools.enricher(record))
    makers = {
        "text": text_report.text,
        "md": text_report.markdown,
        "csv": export.as_csv,
        "json": export.as_json,
        "html": html_report.html,
    }
    if form not in makers:
        raise UsageError(f"no report format '{form}'", hint=f"Formats: {', '.join(FORMATS)}")
    layouts = publication_tables(record) if form in ("text", "md", "html") else ""
    if form == "html":
        # A page ends with its own last tag: what follows the ranking goes inside.
        return html_report.html(model, layouts)
    text = makers[form](model)
    return f"{text}\n{layouts}" if layouts else text


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    write_bytes(path, text.encode("utf-8", "replace"), hint="Choose another: --out FILE")


def rejudge(record: RunRecord, signatures: tuple[Path, ...], *, keep: bool) -> list[Mapping[str, Any]]:
    """Judge every finished trial again: logs with today's signatures, observations with today's rules."""
    changes: list[Mapping[str, Any]] = []
    log = EventLog(record.run.events) if keep else None
    clock = SystemClock()
    for trial in record.trials.values():
        if trial.verdict is None:
            continue
        cell = record.cells[trial.cell_id]
        observed = tools.rediagnose(record, trial, cell, signatures)
        after = judge_trial(
            cell, trial.cell_id, trial.trial, observed, tools.compare_requested, trial.verdict.elapsed_s
        )
        change = views.difference(cell, trial.verdict, after)
        if change:
            changes.append(change)
        if log and change:
            data = {"verdict": codec.dump(after), "judged_again": True, "policy": judge.POLICY_VERSION}
            log.append("trial_finished", data, utc=clock.utc(), mono_s=clock.mono_s(), trial=trial.trial)
    if log:
        log.close()
    return changes


status = views.status
status_text = views.status_text
show = views.show
show_text = views.show_text
changes_text = views.changes_text
