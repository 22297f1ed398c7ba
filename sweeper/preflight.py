"""Try a cell's kernels on the canary before the real weights are loaded.

One canary launch per distinct server configuration; its result stands for every cell that shares it. `auto` runs first
and at debug level, so that backends which the engine itself rules out cost no launch at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sweeper.core import observations as seen
from sweeper.core.errors import LaunchFailed, SweeperError
from sweeper.core.identity import cell_id
from sweeper.core.observations import CanaryChecked
from sweeper.core.values import Cell, LaunchPlan, Unsupported
from sweeper.core.verdicts import Cause, Phase
from sweeper.engines.support import DEBUG_ENV, Rejected, rejected
from sweeper.probes.openai import Client
from sweeper.probes.ready import first_answers, wait_healthy
from sweeper.watch import TrialEnded, Watch

LOG = "canary.log"


class Checker(Protocol):
    """The numeric check of a running server against a canary's golden vectors."""

    def __call__(self, base_url: str, model: str, canary: Path) -> CanaryChecked: ...


@dataclass(slots=True, kw_only=True)
class Preflight:
    """Results by configuration. `canary_of`: the canary folder for a cell, or the reason why there is none."""

    canary_of: Callable[[Cell], Path | str]
    check: Checker
    results: dict[str, CanaryChecked] = field(default_factory=dict)
    support: dict[str, dict[str, Rejected]] = field(default_factory=dict)
    seconds: float = 0.0
    saved: int = 0
    """Cells that failed here and never loaded the weights."""

    def run(self, request: Any, tools: Any, sink: Any) -> CanaryChecked:
        """The canary's verdict for the request's cell, from memory where the same configuration was tried before."""
        found = self._result(request, tools, sink)
        if found.verdict in ("failed", "garbage", "degraded"):
            self.saved += 1
        return found

    def _result(self, request: Any, tools: Any, sink: Any) -> CanaryChecked:
        cell: Cell = request.cell
        folder = self.canary_of(cell)
        if isinstance(folder, str):
            return CanaryChecked(verdict="unchecked", figures={"why": folder})
        if cell.url:
            return CanaryChecked(verdict="unchecked", figures={"why": "a server that is already up loads no canary"})
        ruled_out = self.support.get(_layout(cell), {}).get(cell.moe_backend)
        if ruled_out:
            return _refused(ruled_out)
        small = canary_cell(cell, folder)
        key = cell_id(small)
        if key not in self.results:
            begun_s = tools.clock.mono_s()
            self.results[key] = self._launch(request, small, folder, tools, sink)
            self.seconds += tools.clock.mono_s() - begun_s
        return self.results[key]

    def _launch(self, request: Any, small: Cell, folder: Path, tools: Any, sink: Any) -> CanaryChecked:
        sink.phase(Phase.CANARY, "starting")
        plan = tools.engine(small.engine).plan(small)
        if isinstance(plan, Unsupported):
            return CanaryChecked(verdict="unchecked", figures={"why": plan.reason})
        log = request.log.with_name(LOG)
        try:
            handle = tools.launcher(small).start(
                plan, log_path=log, run_id=request.run_id, trial=f"{request.trial}-canary", gpus=request.gpus
            )
        except LaunchFailed as problem:
            cause = Cause(id=problem.cause_id, means=problem.message, try_=problem.hint or "")
            return CanaryChecked(verdict="failed", cause=cause)
        with handle:
            result = self._attended(request, small, folder, plan, handle, log, tools, sink)
            handle.stop(request.matrix.policy.deadlines.stop_s)
        if request.gpus:
            tools.wait_gpus_free(request.gpus, request.matrix.policy.deadlines.gpu_free_s)
        if small.moe_backend == "auto":
            self.support[_layout(small, request.cell.model)] = rejected(_lines(log))
        return result

    def _attended(
        self, request: Any, small: Cell, folder: Path, plan: LaunchPlan, handle: Any, log: Path, tools: Any, sink: Any
    ) -> CanaryChecked:
        limits = request.matrix.policy.deadlines
        watch = Watch(handle, log, tools.matcher(small), tools.clock)
        client = Client(handle.record.base_url, plan.served_model, timeout_s=limits.first_answer_s)

        def healthy(cancel: threading.Event) -> bool:
            return wait_healthy(client, plan.health_path, tools.clock, cancel)

        try:
            watch.during(Phase.READY, healthy, deadline_s=limits.ready_s)
            watch.during(
                Phase.READY, lambda c: first_answers(client, tools.clock, 0.0), deadline_s=limits.first_answer_s
            )
            sink.phase(Phase.CANARY, "checking numbers")
            return watch.during(
                Phase.CANARY,
                lambda c: self.check(handle.record.base_url, plan.served_model, folder),
                deadline_s=limits.canary_s,
            )
        except TrialEnded as end:
            code = next((item.code for item in end.observed if isinstance(item, seen.ServerExited)), None)
            handle.stop(limits.stop_s)
            return self._failed(end, log, small, code, tools, request.trial)
        except SweeperError as error:
            return CanaryChecked(verdict="unchecked", figures={"why": error.message})
        finally:
            client.close()

    def _failed(
        self, end: TrialEnded, log: Path, small: Cell, code: int | None, tools: Any, trial: str
    ) -> CanaryChecked:
        diagnosed, _ = tools.diagnose(log, small.engine, code)
        cause = diagnosed.cause if diagnosed.verdict in ("fatal", "unknown-exit") else None
        if cause is None:
            cause = _own_words(end)
        return CanaryChecked(verdict="failed", cause=replace(cause, log=f"trials/{trial}/{LOG}"))


def canary_cell(cell: Cell, folder: Path) -> Cell:
    """The same server over the canary's checkpoint; `auto` of vLLM at debug level, to read its support matrix."""
    env = dict(cell.env)
    if cell.moe_backend == "auto" and cell.engine == "vllm":
        env = {**dict(DEBUG_ENV), **env}
    return replace(
        cell,
        model=str(folder),
        name=None,
        max_model_len=min(cell.max_model_len or 1024, 1024),
        env=tuple(sorted(env.items())),
    )


def _layout(cell: Cell, model: str | None = None) -> str:
    """Everything that decides which backends exist, except the backend itself."""
    env = tuple(pair for pair in cell.env if pair not in DEBUG_ENV)
    same = replace(cell, moe_backend="auto", name=None, model=model or cell.model, env=env, max_model_len=None)
    return cell_id(same)


def _refused(entry: Rejected) -> CanaryChecked:
    means = f"The engine rules {entry.backend} out here: {entry.reason} (read off one launch of auto at debug level)."
    cause = Cause(id="moe-backend-rejected", means=means, line_no=entry.line_no, line=entry.line)
    return CanaryChecked(verdict="failed", cause=cause)


def _own_words(end: TrialEnded) -> Cause:
    for item in end.observed:
        if isinstance(item, seen.RequestFailed):
            return Cause(id="request-failed", means=item.problem)
        if isinstance(item, seen.DeadlinePassed):
            return Cause(
                id=f"{item.phase}-timeout", means=f"Nothing came back in {item.after_s:.0f} s.", line=item.last_line
            )
        if isinstance(item, seen.FatalLine):
            return Cause(id=item.id, means="", line_no=item.line_no, line=item.line)
    return Cause(id="unknown-exit", means="The server ended on the canary and no signature explains it.")


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
