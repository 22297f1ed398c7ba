"""`bugreport` and `reproduce` as the command line calls them."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeper import __version__, app, tools
from sweeper.bugreport import archive, replay
from sweeper.bugreport.case import gather, gpu_names
from sweeper.bugreport.contents import Report, compose, preview
from sweeper.bugreport.redaction import Private, private_of
from sweeper.bugreport.versions import versions_of
from sweeper.clock import SystemClock
from sweeper.core import codec
from sweeper.core.errors import SweeperError, UsageError
from sweeper.core.identity import cell_id
from sweeper.core.values import Expansion, Matrix, PlannedCell
from sweeper.core.verdicts import Verdict
from sweeper.report.progress import Console
from sweeper.runner import Sweep, go, plain_rounds
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog, Lock
from sweeper.store.record import RunRecord, TrialRecord, read
from sweeper.views import find_trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A report that is not written yet, and where it would go."""

    report: Report
    target: Path

    def preview(self) -> str:
        return preview(self.report, str(self.target))

    def write(self) -> Path:
        """Raises UsageError or EnvironmentNotReady."""
        archive.write(self.target, self.report.folder, self.report.files)
        return self.target


def draft(
    record: RunRecord, name: str, *, wanted: str | None, out: Path | None, hide: tuple[str, ...], force: bool
) -> Draft:
    """Everything but writing. Raises UsageError."""
    trial = find_trial(record, name)
    cell = record.cells[trial.cell_id]
    image = (trial.launch or {}).get("image")
    case = gather(record, trial, versions_of(cell, image))
    report = compose(case, private_here(_environments(record), hide), wanted)
    target = out or Path(f"{report.folder}.tar.gz")
    target = target / f"{report.folder}.tar.gz" if target.is_dir() else target
    if not target.name.endswith((".tar.gz", ".tgz", ".zip")):
        raise UsageError(f"{target}: the archive's name must end in .tar.gz or .zip")
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="Another name: --out FILE. Replace it: --force")
    return Draft(report=report, target=target)


def _environments(record: RunRecord) -> list[Mapping[str, str]]:
    """What every cell of the run sets, and what its servers were started with."""
    launched = [(trial.launch or {}).get("env") or {} for trial in record.trials.values()]
    return [*(dict(cell.env) for cell in record.cells.values()), *launched]


def private_here(environments: Sequence[Mapping[str, str]], hide: tuple[str, ...] = ()) -> Private:
    """What is private on this machine, and in the environments that servers ran with."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = None
    hosts = {socket.gethostname(), _first_line(Path("/etc/hostname"))}
    token_file = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "token"
    stored = {"HF_TOKEN": _first_line(token_file)}
    environs = [os.environ, *environments, stored]
    found = private_of(environs, user=user, hosts=hosts, home=str(Path.home()))
    too_short = [word for word in hide if len(word) < 3]
    if too_short:
        raise UsageError(f"--hide {too_short[0]}: give at least three characters")
    return replace(found, words=frozenset(hide))


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8").split("\n")[0].strip()
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What the command line says about a reproduction."""

    archive: Path
    python: str | None = None
    image: str | None = None
    trust: bool = False
    logs: Path = Path("logs")
    gpus: tuple[str, ...] | None = None


def reproduce(options: ReplayOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """The comparison, with `run` and `trial_here`. Raises BadArchive (2), EnvironmentNotReady (3)."""
    if options.python and options.image:
        raise UsageError("--python and --image exclude each other")
    source = replay.open_report(options.archive)
    cell = replay.cell_here(source, options.python, options.image, trust=options.trust)
    gpus = options.gpus if options.gpus is not None else tools.visible_gpus()
    replay.enough_gpus(cell, gpus)
    run_id = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-reproduce-{secrets.token_hex(2)}"
    facts = {
        "schema": 1, "sweeper": __version__, "matrix": "reproduce", "title": f"Reproduction of {options.archive.name}",
        "host": tools.host_facts(), "reproduces": dict(source.manifest["expected"]),
    }  # fmt: skip
    run = rundir.create(options.logs, run_id, b"", facts)
    canary = replay.make_canary(source, cell, run.path.absolute(), say)
    cell = replace(cell, model=str(canary), name=f"reproduction of {source.manifest.get('trial', '-')}")
    trial, verdict = _swept(run, replay.matrix_of(source, cell), gpus)
    problem = replay.environment_problem(source, verdict)
    if problem:
        raise problem
    here = _here(facts["host"], trial)
    return {**replay.compare(source, cell, verdict, here), "run": str(run.path), "trial_here": verdict.trial}


def _here(host: Any, trial: TrialRecord) -> dict[str, str]:
    launch = trial.launch or {}
    boards = gpu_names(host, launch.get("gpus") or ())
    return {
        "GPU": ", ".join(boards) or "none",
        "driver": str(host.get("driver") or ""),
        "image digest": str(launch.get("image_digest") or ""),
    }


def _swept(run: rundir.RunDir, matrix: Matrix, gpus: tuple[str, ...]) -> tuple[TrialRecord, Verdict]:
    """The one trial of a one-cell sweep, with its verdict."""
    clock, console, log = SystemClock(), Console(), EventLog(run.events)
    planned = tuple(PlannedCell(cell=cell, cell_id=cell_id(cell)) for cell in matrix.cells)
    lock = Lock(run.path)
    sweep = Sweep(
        run=run,
        matrix=matrix,
        expansion=Expansion(cells=planned, excluded=()),
        tools=tools.build(matrix, None, (), clock, console.note),
        log=log,
        clock=clock,
        progress=console,
        gpus=gpus,
        next_cells=plain_rounds([item.cell_id for item in planned], 1),
        compare=tools.compare_requested,
    )
    cells = [{"id": item.cell_id, "cell": codec.dump(item.cell)} for item in planned]
    try:
        log.append("run_started", {"sweeper": __version__, "argv": []}, utc=clock.utc(), mono_s=clock.mono_s())
        log.append("planned", {"cells": cells, "excluded": []}, utc=clock.utc(), mono_s=clock.mono_s())
        with app.interruptible():
            go(sweep)
    finally:
        log.close()
        console.close()
        lock.release()
    for trial in read(run).trials.values():
        if trial.verdict:
            return trial, trial.verdict
    raise SweeperError(f"{run.path}: the trial left no verdict")
