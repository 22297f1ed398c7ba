"""One trial: launch a cell, watch it, check it, measure it, stop it. What is seen is recorded; nothing is judged here.

    planned -> launched -> healthy -> two answers -> (canary) -> text -> points -> stopped -> diagnosed

Whatever happens inside, the server is stopped, its log is read to the end, and the observations so far are kept.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sweeper import gpuwindows
from sweeper.canarylaunch import Diagnose
from sweeper.core import observations as seen
from sweeper.core.arguments import for_machine
from sweeper.core.canaries import CanaryLaunch
from sweeper.core.errors import LaunchFailed
from sweeper.core.gputrace import GpuTrace
from sweeper.core.observations import Observation
from sweeper.core.points import DecodePoint
from sweeper.core.ports import Clock, Engine, Launch, Launcher, ServerHandle
from sweeper.core.sanity import summarise
from sweeper.core.values import Cell, Hardware, LaunchPlan, Matrix, Unsupported, Workload
from sweeper.core.verdicts import Phase
from sweeper.preflight import Preflight, failed
from sweeper.probes.openai import Client
from sweeper.probes.ready import LATER_S, first_answers, wait_healthy
from sweeper.probes.text import Prompt, ask
from sweeper.watch import LiveMatcher, TrialEnded, Watch

T = TypeVar("T")


class Measured(Protocol):
    """Result of a load run."""

    @property
    def points(self) -> Sequence[DecodePoint]: ...

    @property
    def requests(self) -> Sequence[Mapping[str, Any]]: ...


class Measure(Protocol):
    """`probes.load.measure`, bound to nothing."""

    def __call__(
        self,
        base_url: str,
        model: str,
        workload: Workload,
        *,
        metrics_path: str | None,
        seed: int,
        meter: Any,
        tokenizer: Path,
    ) -> Measured: ...


class OpenMeter(Protocol):
    """`probes.machine.open_meter` for the GPUs of a cell: what `measure` starts and stops around its windows."""

    def __call__(
        self,
        gpus: tuple[str, ...],
        *,
        preset: str,
        own_pids: Callable[[], Sequence[int] | None],
        strangers: Sequence[int],
    ) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Everything a trial does to the outside world."""

    clock: Clock
    engine: Callable[[str], Engine]
    launcher: Callable[[Cell], Launcher]
    matcher: Callable[[Cell], LiveMatcher]
    diagnose: Diagnose
    measure: Measure
    meter: OpenMeter
    machine: Callable[[Cell, tuple[str, ...]], seen.MachineBefore]
    """CPU, page cache and the processes on these GPUs, right before a launch."""
    prompts: Callable[[Cell], tuple[Prompt, ...]]
    """Empty where text of this model means nothing (random weights)."""
    numbers: Callable[[Cell, str, str], seen.CanaryChecked | None]
    """Cell, base URL, served model -> check against the golden vectors beside the checkpoint; None without any."""
    preflight: Preflight | None = None
    """None: the policy wants no canary."""
    precheck: Callable[[Cell], seen.LaunchProblem | None]
    """What is wrong with the cell before anything is started."""
    text: Callable[[Cell, str, str], seen.TextScored | None]
    """Cell, base URL, served model -> NLL on fixed text; None where golden vectors say more."""
    wait_gpus_free: Callable[[tuple[str, ...], float], tuple[str, ...]]
    """GPUs, deadline -> who still holds memory."""
    lacking: Callable[[Cell, Hardware, tuple[str, ...]], str | None] = lambda cell, hardware, gpus: None
    """Which GPUs the cell needs and does not get; None: none."""


class Sink(Protocol):
    """Where a trial reports to: the record and the live line."""

    def observe(self, item: Observation) -> None: ...

    def launched(self, record: Launch, plan: LaunchPlan) -> None: ...

    def canary(self, launch: CanaryLaunch) -> None: ...

    def phase(self, phase: Phase, detail: str = "") -> None: ...

    def requests(self, workload: str, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def gpu_traces(self, workload: str, concurrency: int, traces: Sequence[GpuTrace]) -> None: ...

    def post_mortem(self, facts: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to try: one launch of one cell."""

    run_id: str
    trial: str
    cell: Cell
    matrix: Matrix
    gpus: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Live:
    """A trial whose server runs. `strangers`: who was on its GPUs before."""

    request: Request
    tools: Tools
    sink: Sink
    plan: LaunchPlan
    handle: ServerHandle
    strangers: tuple[int, ...]


def run_trial(request: Request, tools: Tools, sink: Sink) -> None:
    """Raises only for interruption and for faults of our own; everything about the server goes to the sink."""
    plan = tools.engine(request.cell.engine).plan(request.cell)
    if isinstance(plan, Unsupported):
        sink.observe(seen.NotPlanned(reason=plan.reason))
        return
    plan = for_machine(plan, request.matrix.hardware)
    lacking = tools.lacking(request.cell, request.matrix.hardware, request.gpus)
    if lacking:
        sink.observe(seen.NotPlanned(reason=lacking, cause_id="gpus-missing"))
        return
    sink.phase(Phase.LAUNCH)
    wrong = tools.precheck(request.cell) or _preflight(request, tools, sink)
    if wrong:
        sink.observe(wrong)
        return
    sink.phase(Phase.LAUNCH)
    before = tools.machine(request.cell, request.gpus)
    sink.observe(before)
    try:
        launcher = tools.launcher(request.cell)
        handle = launcher.start(
            plan, log_path=request.log, run_id=request.run_id, trial=request.trial, gpus=request.gpus
        )
    except LaunchFailed as problem:
        sink.observe(seen.LaunchProblem(cause_id=problem.cause_id, message=problem.message, hint=problem.hint or ""))
        return
    with handle:
        sink.launched(handle.record, plan)
        strangers = () if plan.url else before.gpu_pids or ()
        _attended(_Live(request=request, tools=tools, sink=sink, plan=plan, handle=handle, strangers=strangers))
    holders = tools.wait_gpus_free(request.gpus, request.matrix.policy.deadlines.gpu_free_s) if request.gpus else ()
    if holders:
        sink.observe(seen.GpuHeld(holders=holders))


def _preflight(request: Request, tools: Tools, sink: Sink) -> seen.CanaryChecked | None:
    """The canary's result where it ends the trial; a good or missing one is only recorded."""
    if tools.preflight is None:
        return None
    found = tools.preflight.run(request, tools, sink)
    if failed(found):
        return found
    sink.observe(found)
    return None


def _attended(live: _Live) -> None:
    request, tools, sink, handle = live.request, live.tools, live.sink, live.handle
    matcher = tools.matcher(request.cell)
    watch = Watch(handle, request.log, matcher, tools.clock, on_boot=lambda name: sink.phase(Phase.READY, name))
    exited: seen.ServerExited | None = None
    try:
        for item in _life(live, watch):
            sink.observe(item)
    except TrialEnded as end:
        for item in end.observed:
            exited = item if isinstance(item, seen.ServerExited) else exited
            sink.observe(item)
        sink.post_mortem(handle.post_mortem())
    finally:
        sink.phase(Phase.STOP)
        ended = handle.stop(request.matrix.policy.deadlines.stop_s)
        if exited is None:
            sink.observe(
                seen.ServerExited(
                    phase=Phase.STOP,
                    code=ended.code,
                    oom_killed=ended.oom_killed,
                    by_us=ended.stopped_by_us,
                    how=ended.how,
                )
            )
        _read_log(request, tools, sink, exited)


def _read_log(request: Request, tools: Tools, sink: Sink, exited: seen.ServerExited | None) -> None:
    if not request.log.exists():
        return
    diagnosed, effective = tools.diagnose(request.log, request.cell.engine, exited.code if exited else None)
    if diagnosed.cause:
        name = f"trials/{request.trial}/{request.log.name}"
        diagnosed = replace(diagnosed, cause=replace(diagnosed.cause, log=name))
    sink.observe(diagnosed)
    if effective:
        sink.observe(seen.EffectiveSeen(effective=effective))


def _life(live: _Live, watch: Watch) -> Any:
    """Generator of observations from the start of the process to the last window."""
    request, tools, sink, plan, handle = live.request, live.tools, live.sink, live.plan, live.handle
    limits = request.matrix.policy.deadlines
    client = Client(handle.record.base_url, plan.served_model, timeout_s=limits.first_answer_s + LATER_S)
    begun_s = tools.clock.mono_s()
    try:
        sink.phase(Phase.READY, "starting")

        def healthy(cancel: threading.Event) -> bool:
            return wait_healthy(client, plan.health_path, tools.clock, cancel)

        watch.during(Phase.READY, healthy, deadline_s=limits.ready_s)
        sink.phase(Phase.READY, "first answers")
        yield watch.during(
            Phase.READY, lambda cancel: first_answers(client, tools.clock, begun_s), deadline_s=limits.first_answer_s
        )
        sink.phase(Phase.SANITY)
        prompts = tools.prompts(request.cell)
        samples = watch.during(Phase.SANITY, lambda cancel: list(ask(client, prompts)), deadline_s=limits.sanity_s)
        yield from samples
        if summarise(samples)[0]:
            # The speed of nonsense is of no interest, and the machine has other cells to try.
            return
        checked = _asked(live, watch, tools.numbers, limits.canary_s)
        if checked:
            yield checked
            if failed(checked):
                return
        scored = _asked(live, watch, tools.text, limits.sanity_s)
        if scored:
            yield scored
        yield from _points(live, watch)
    finally:
        client.close()


def _asked(live: _Live, watch: Watch, probe: Callable[[Cell, str, str], T], deadline_s: float) -> T:
    """One probe of the answers, watched."""
    cell, url, model = live.request.cell, live.handle.record.base_url, live.plan.served_model
    return watch.during(Phase.SANITY, lambda cancel: probe(cell, url, model), deadline_s=deadline_s)


def _points(live: _Live, watch: Watch) -> Any:
    for workload in live.request.matrix.workloads:
        for concurrency in workload.concurrency:
            yield from _point(live, watch, replace(workload, concurrency=(concurrency,)))


def _seed(live: _Live, workload: Workload) -> int:
    """A server that was up before keeps what it read: there every trial has prompts of its own. A fresh one has read
    nothing, and every cell is asked the same.
    """
    if live.plan.url is None:
        return workload.seed
    return zlib.crc32(f"{workload.seed}/{live.request.run_id}/{live.request.trial}".encode())


def _point(live: _Live, watch: Watch, workload: Workload) -> Any:
    """One workload at one concurrency: the point, and what the GPUs did meanwhile."""
    tools, sink, handle, (concurrency,) = live.tools, live.sink, live.handle, workload.concurrency
    sink.phase(Phase.MEASURE, f"{workload.name} at {concurrency}")
    meter = tools.meter(handle.record.gpus, preset=workload.preset, own_pids=handle.pids, strangers=live.strangers)

    def work(cancel: threading.Event) -> Measured:
        return tools.measure(
            handle.record.base_url,
            live.plan.served_model,
            workload,
            metrics_path=live.plan.metrics_path,
            seed=_seed(live, workload),
            meter=meter,
            tokenizer=Path(live.request.cell.model),
        )

    try:
        result = watch.during(Phase.MEASURE, work, deadline_s=live.request.matrix.policy.deadlines.measure_s)
    finally:
        meter.close()
    sink.requests(f"{workload.name}-c{concurrency}", result.requests)
    traces = gpuwindows.with_tokens(meter.traces, result.requests)
    if traces:
        sink.gpu_traces(workload.name, concurrency, traces)
    watched = gpuwindows.watched(workload.name, concurrency, workload.preset, traces)
    if watched:
        yield watched
    for point in result.points:
        yield seen.PointMeasured(workload=workload.name, point=point)
