"""Try a cell's kernels on the canary before the real weights are loaded.

One canary launch per distinct server configuration; its result stands for every cell and launch that shares it, also
after a resume. Where a layout has several backends, its `auto` goes first and at debug level: backends which the
engine itself rules out cost no launch at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweeper.canarylaunch import Check, Request, Sink, Tools, try_canary, unchecked
from sweeper.core.arguments import flag_in, for_machine
from sweeper.core.canaries import BAD, CanaryLaunch, Refusal
from sweeper.core.canaries_args import DRAFTS, about_kernels
from sweeper.core.identity import cell_id
from sweeper.core.observations import CanaryChecked
from sweeper.core.values import Cell, Unsupported
from sweeper.core.verdicts import Cause
from sweeper.core.vllm_values import normal
from sweeper.engines.support import DEBUG_ENV, refusals, refused

LOG = "canary.log"
AUTO_LOG = "canary-auto.log"
CANARY_LEN = 1024
"""Tokens: room for the golden prompts, whatever length the cell serves. A shorter cell whose batches are bounded keeps
its own length: without chunked prefill a batch must hold a whole prompt."""

OWN_FILES = frozenset(
    {"model-architecture-unsupported", "model-architecture-inspect-failed", "transformers-too-old", "model-not-found"}
    | {"chat-template-missing", "checkpoint-corrupt", "max-model-len-exceeds-model", "kv-cache-request-rejected"}
    | {"unsupported-quantization", "hf-offline-or-network", "hf-gated-repo", "bitsandbytes-binary-missing"}
)
"""Causes that speak of the files of a checkpoint, which are the canary's own: text-only class, tokenizer, format. The
real model meets them before its weights are read, if at all."""
OWN_SHAPE = frozenset(
    {"tp-heads-not-divisible", "ep-experts-not-divisible", "moe-shape-unsupported", "marlin-shape-not-divisible"}
    | {"tp-quant-block-not-divisible", "mtp-weights-missing", "mtp-weights-name-mismatch"}
)
"""Causes that speak of the checkpoint's shape: nothing about a model that the canary was not built like."""
_OWN_SHAPE = re.compile(r"hidden dim|routing|router logits|act_and_mul|activation\.?\s*$")
"""The same in the reasons of vLLM's `is_supported_config`: size, routing and activation are the checkpoint's."""


@dataclass(slots=True, kw_only=True)
class Preflight:
    """Results by configuration."""

    canary_of: Callable[[Cell], Path | str]
    """The canary's folder for a cell, or the reason why there is none."""
    check: Check
    cells: tuple[Cell, ...] = ()
    """All cells of the sweep: whether a launch of `auto` can spare others depends on them."""
    like_the_model: bool = True
    """False: the canary's shape is its own."""
    launches: dict[str, CanaryLaunch] = field(default_factory=dict)

    def restore(self, launches: Iterable[CanaryLaunch]) -> None:
        """Take over the answers of an interrupted sweep; what was left unchecked is tried again."""
        for launch in launches:
            if launch.checked.verdict != "unchecked":
                self.launches[launch.key] = launch

    def run(self, request: Request, tools: Tools, sink: Sink) -> CanaryChecked:
        """The canary's verdict for the request's cell, from memory where it is known."""
        folder = self.canary_of(request.cell)
        if isinstance(folder, str):
            return unchecked(folder)
        why_not = _nothing_to_try(request.cell, folder)
        if why_not:
            return unchecked(why_not)
        small = canary_cell(request.cell, folder)
        if cell_id(small) in self.launches:
            return self.launches[cell_id(small)].checked
        auto = canary_cell(replace(request.cell, moe_backend="auto"), folder)
        if small != auto and cell_id(auto) not in self.launches and self._worth_a_launch(request.cell):
            self._launch(request, auto, folder, AUTO_LOG, tools, sink)
        ruling = self._refusal(small, cell_id(auto))
        return ruling or self._launch(request, small, folder, LOG, tools, sink)

    def taken(self, found: CanaryChecked) -> CanaryChecked:
        """What a launch found, as far as it says something about the cell's own model."""
        cause = found.cause
        if cause is not None and cause.id in OWN_FILES:
            return unchecked(f"{cause.id} on the canary, whose files are not this model's")
        if cause is None or self.like_the_model:
            return found
        refused_shape = cause.id == "moe-backend-rejected" and _OWN_SHAPE.search(cause.line or "")
        if cause.id in OWN_SHAPE or refused_shape:
            return unchecked(f"{cause.id} on the canary, whose shape is not this model's")
        return found

    def _worth_a_launch(self, cell: Cell) -> bool:
        """A cell wants `auto` of this layout anyway, or two backends may be spared by it."""
        if cell.engine != "vllm":
            return False
        layout = _layout(cell)
        backends = {normal(other.moe_backend) for other in self.cells if _layout(other) == layout}
        return "auto" in backends or len(backends) > 1

    def _refusal(self, small: Cell, layout: str) -> CanaryChecked | None:
        backend = normal(small.moe_backend)
        if small.engine != "vllm" or backend == "auto":
            return None
        for launch in self.launches.values():
            line = refused(launch.refusals, backend) if launch.layout == layout else None
            if line and (self.like_the_model or not _OWN_SHAPE.search(line.reason)):
                return _ruled_out(backend, line, launch.log)
        return None

    def _launch(
        self, request: Request, small: Cell, folder: Path, name: str, tools: Tools, sink: Sink
    ) -> CanaryChecked:
        plan = tools.engine(small.engine).plan(small)
        if isinstance(plan, Unsupported):
            return unchecked(plan.reason)
        plan = for_machine(plan, request.matrix.hardware)
        log = request.log.with_name(name)
        begun_s = tools.clock.mono_s()
        found, by_hand = try_canary(request, small, plan, log, tools, sink, self.check)
        checked = self.taken(found)
        launch = CanaryLaunch(
            key=cell_id(small),
            layout=cell_id(canary_cell(replace(small, moe_backend="auto"), folder)),
            label=small.label(),
            checked=checked,
            seconds=round(tools.clock.mono_s() - begun_s, 3),
            log=f"trials/{request.trial}/{name}",
            by_hand=by_hand,
            refusals=refusals(_lines(log)) if small.engine == "vllm" else (),
        )
        self.launches[launch.key] = launch
        sink.canary(launch)
        return checked


def canary_cell(cell: Cell, folder: Path) -> Cell:
    """The same server over the canary's checkpoint; `auto` of vLLM at debug level, to read its support matrix."""
    tied = cell.max_model_len and flag_in(cell.extra_args, "--max-num-batched-tokens")
    length = min(cell.max_model_len or CANARY_LEN, CANARY_LEN) if tied else CANARY_LEN
    small = replace(cell, model=str(folder.absolute()), name=None, max_model_len=length)
    if cell.engine != "command":
        small = replace(small, extra_args=about_kernels(cell.extra_args))
    if cell.engine != "vllm":
        return small
    debug, backend = dict(DEBUG_ENV), normal(cell.moe_backend)
    env = {name: value for name, value in cell.env if debug.get(name) != value}
    env = {**debug, **env} if backend == "auto" else env
    return replace(small, moe_backend=backend, env=tuple(sorted(env.items())))


def failed(found: CanaryChecked) -> bool:
    """Whether the canary's verdict is the cell's: the weights need not be loaded."""
    return found.verdict in BAD


def _nothing_to_try(cell: Cell, folder: Path) -> str | None:
    if cell.url:
        return "a server that is already up loads no canary"
    if Path(cell.model).absolute() == folder.absolute():
        return "the model is the canary itself"
    if cell.engine == "command" and not any("{model}" in word for word in (*cell.command, *cell.extra_args)):
        return "`command` has no {model}: it cannot be started over the canary"
    if (cell.speculative and cell.speculative.model) or flag_in(cell.extra_args, *DRAFTS):
        return "the draft model belongs to the real model and does not fit the canary"
    return None


def _layout(cell: Cell) -> str:
    """Everything that decides which backends exist, except the backend itself."""
    return cell_id(replace(canary_cell(replace(cell, moe_backend="auto"), Path("canary")), model=cell.model))


def _ruled_out(backend: str, refusal: Refusal, log: str) -> CanaryChecked:
    means = f"The engine rules {backend} out: {refusal.reason}. Read off another launch of this layout; none was made."
    cause = Cause(id="moe-backend-rejected", means=means, line_no=refusal.line_no, line=refusal.line, log=log)
    return CanaryChecked(verdict="failed", figures={"launched": False}, cause=cause)


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
