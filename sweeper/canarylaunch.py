"""One launch of a canary: start it, watch it, check its numbers, stop it. Says what happened; decides nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from sweeper.core import observations as seen
from sweeper.core.canaries import BAD, CanaryLaunch
from sweeper.core.effective import EffectiveConfig
from sweeper.core.errors import BadFile, LaunchFailed, SweeperError, UsageError
from sweeper.core.observations import CanaryChecked, Observation
from sweeper.core.ports import Clock, Engine, Launcher, ServerHandle
from sweeper.core.values import Cell, Deadlines, LaunchPlan, Matrix
from sweeper.core.verdicts import Cause, Phase
from sweeper.probes.openai import Client
from sweeper.probes.ready import LATER_S, first_answers, wait_healthy
from sweeper.watch import LiveMatcher, TrialEnded, Watch

NOT_THE_KERNELS = frozenset(
    {"gpu-memory-in-use", "memory-profiling-disturbed", "port-in-use", "disk-full", "host-oom-kill"}
    | {"xid-ecc-uncorrectable", "xid-gpu-fallen-off-bus", "xid-gsp-timeout", "driver-library-mismatch"}
)
"""Causes that lie in the machine at that moment: the cell itself must be tried."""
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FROM_OUTSIDE = frozenset({0, *(128 + number for number in _SIGNALS), *(-number for number in _SIGNALS)})
"""Exit codes of a server that was told to end, politely (0) or not. Without a line in the log that says why, it was
somebody else, and no kernel."""
DYING_S = 2.0
STILL_ALIVE_S = 30.0
"""How long a server whose check took too long may take for one token before it counts as hung."""


class Request(Protocol):
    """The trial for whose sake the canary is tried."""

    @property
    def run_id(self) -> str: ...

    @property
    def trial(self) -> str: ...

    @property
    def cell(self) -> Cell: ...

    @property
    def matrix(self) -> Matrix: ...

    @property
    def gpus(self) -> tuple[str, ...]: ...

    @property
    def log(self) -> Path:
        """The trial's own log; the canary's lies beside it."""


class Tools(Protocol):
    """What a canary launch does to the outside world."""

    @property
    def clock(self) -> Clock: ...

    @property
    def engine(self) -> Callable[[str], Engine]: ...

    @property
    def launcher(self) -> Callable[[Cell], Launcher]: ...

    @property
    def matcher(self) -> Callable[[Cell], LiveMatcher]: ...

    @property
    def diagnose(self) -> Diagnose: ...

    @property
    def wait_gpus_free(self) -> Callable[[tuple[str, ...], float], Iterable[str]]: ...


class Diagnose(Protocol):
    """A whole log, read from the first byte: what the diagnosis says, and what the log proves to have run."""

    def __call__(
        self, log: Path, engine: str, exit_code: int | None
    ) -> tuple[seen.Diagnosed, EffectiveConfig | None]: ...


class Sink(Protocol):
    """Where the trial reports to."""

    def observe(self, item: Observation) -> None: ...

    def phase(self, phase: Phase, detail: str = "") -> None: ...

    def canary(self, launch: CanaryLaunch) -> None: ...


class Check(Protocol):
    """The numeric check of a running server against a canary's golden vectors."""

    def __call__(self, base_url: str, model: str, canary: Path) -> CanaryChecked: ...


def try_canary(
    request: Request, small: Cell, plan: LaunchPlan, log: Path, tools: Tools, sink: Sink, check: Check
) -> tuple[CanaryChecked, str]:
    """The verdict over `small`, a cell whose model is the canary's folder, and the launch as a shell line.

    `log` is written from the first byte.
    """
    limits = request.matrix.policy.deadlines
    sink.phase(Phase.CANARY, f"starting {small.label()}")
    try:
        handle = tools.launcher(small).start(
            plan, log_path=log, run_id=request.run_id, trial=f"{request.trial}-{log.stem}", gpus=request.gpus
        )
    except LaunchFailed as problem:
        # Nothing was loaded. The cell's own launch costs as little, and what fails there is judged as what it is.
        return unchecked(f"the canary's server could not be created: {problem.message}"), ""
    name = f"trials/{request.trial}/{log.name}"
    with handle:
        try:
            found = _life(small, plan, handle, log, limits, tools, sink, check)
        except TrialEnded as end:
            handle.stop(limits.stop_s)
            found = _failed(end, log, small, tools)
        handle.stop(limits.stop_s)
    holders = tuple(tools.wait_gpus_free(request.gpus, limits.gpu_free_s)) if request.gpus else ()
    if holders:
        sink.observe(seen.GpuHeld(holders=holders))
    if found.cause:
        found = replace(found, cause=replace(found.cause, log=name))
    return found, handle.record.by_hand


def _life(
    small: Cell,
    plan: LaunchPlan,
    handle: ServerHandle,
    log: Path,
    limits: Deadlines,
    tools: Tools,
    sink: Sink,
    check: Check,
) -> CanaryChecked:
    watch = Watch(handle, log, tools.matcher(small), tools.clock)
    client = Client(handle.record.base_url, plan.served_model, timeout_s=limits.first_answer_s + LATER_S)

    def healthy(cancel: threading.Event) -> bool:
        return wait_healthy(client, plan.health_path, tools.clock, cancel)

    def checked(cancel: threading.Event) -> CanaryChecked:
        try:
            return check(handle.record.base_url, plan.served_model, Path(small.model))
        except (BadFile, UsageError) as fault:  # of the golden file or of the question, not of the server
            return unchecked(fault.message)
        except SweeperError:
            raise
        except Exception as fault:  # ours: the cell must not pay for it
            return unchecked(f"the check itself failed: {type(fault).__name__}: {fault}")

    try:
        watch.during(Phase.READY, healthy, deadline_s=limits.ready_s)
        watch.during(Phase.READY, lambda c: first_answers(client, tools.clock, 0.0), deadline_s=limits.first_answer_s)
        sink.phase(Phase.CANARY, "checking numbers")
        try:
            found = watch.during(Phase.CANARY, checked, deadline_s=limits.canary_s)
        except TrialEnded as end:
            if _late(end) and _answers(handle, plan.served_model):
                return unchecked(f"the check took more than {limits.canary_s:g} s; the server answers")
            raise
        if found.verdict in BAD:
            # Requests that failed may be the first sign of a death, whose cause says more than the numbers.
            watch.during(Phase.CANARY, lambda cancel: cancel.wait(DYING_S), deadline_s=2 * DYING_S)
        return found
    except SweeperError as error:
        return unchecked(error.message)
    finally:
        client.close()


def _late(end: TrialEnded) -> bool:
    return any(isinstance(item, seen.DeadlinePassed) for item in end.observed)


def _answers(handle: ServerHandle, model: str) -> bool:
    """Whether the server is slow and not hung."""
    client = Client(handle.record.base_url, model, timeout_s=STILL_ALIVE_S)
    try:
        client.complete("1", max_tokens=1)
    except SweeperError:
        return False
    finally:
        client.close()
    return True


def unchecked(why: str) -> CanaryChecked:
    """The canary says nothing about the cell, and why."""
    return CanaryChecked(verdict="unchecked", figures={"why": why})


def _failed(end: TrialEnded, log: Path, small: Cell, tools: Tools) -> CanaryChecked:
    code = next((item.code for item in end.observed if isinstance(item, seen.ServerExited)), None)
    diagnosed, _ = tools.diagnose(log, small.engine, code)
    cause = diagnosed.cause if diagnosed.verdict in ("fatal", "unknown-exit") else None
    cause = cause or _own_words(end)
    if code in FROM_OUTSIDE and cause.id == "unknown-exit":
        return unchecked(f"the canary's server was ended from outside (exit code {code})")
    if cause.id in NOT_THE_KERNELS:
        return unchecked(f"the canary met {cause.id}, which is about this machine and not about the cell")
    return CanaryChecked(verdict="failed", cause=cause)


def _own_words(end: TrialEnded) -> Cause:
    for item in end.observed:
        if isinstance(item, seen.RequestFailed):
            return Cause(id="request-failed", means=item.problem)
        if isinstance(item, seen.DeadlinePassed):
            means = f"Nothing came back from the canary in {item.after_s:.0f} s."
            return Cause(id=f"{item.phase}-timeout", means=means, line=item.last_line or None)
        if isinstance(item, seen.FatalLine):
            return Cause(id=item.id, means="", line_no=item.line_no, line=item.line)
    return Cause(id="unknown-exit", means="The server ended on the canary and no signature explains it.")
