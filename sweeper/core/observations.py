"""What probes saw during one trial. No opinions: `judge` makes those, and can make them again later.

Each observation is one event in the run's log; `KINDS` maps the event type to the class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sweeper.core.effective import EffectiveConfig
from sweeper.core.energy import MachineWindow
from sweeper.core.machinestate import CpuState, PageCache
from sweeper.core.points import DecodePoint
from sweeper.core.textscores import TextScores
from sweeper.core.verdicts import Cause, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlanned:
    """The engine cannot express the cell, or this machine lacks what it needs."""

    reason: str
    cause_id: str = "not-expressible"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchProblem:
    """The server could not be created."""

    cause_id: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadySeen:
    """Health answered and `answers` real generations came back."""

    after_s: float
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FatalLine:
    """A log line that ended the launch, as the matcher saw it live."""

    id: str
    phase: Phase
    line_no: int
    line: str
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """A request that the phase depends on came back wrong."""

    phase: Phase
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """A phase ran out of time; `last_line` is the last thing the server wrote, `silent_s` how long ago."""

    phase: Phase
    after_s: float
    last_line: str
    silent_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSample:
    """One greedy answer. `right` is None where the prompt has no known answer."""

    prompt: str
    text: str
    tokens: int | None
    finish_reason: str | None
    problem: str | None
    """empty, looping, not text, noise; None: none of these."""
    right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryChecked:
    """The canary's result: right, degraded, garbage or unchecked, with its figures."""

    verdict: str
    figures: dict[str, Any] = field(default_factory=dict)
    cause: Cause | None = None
    where: str = "preflight"
    """preflight: the small checkpoint. reference: the real model against the run's reference cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScored:
    """The model's NLL on fixed natural text; compared with the reference cell's when the run is reported."""

    scores: TextScores


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineBefore:
    """The machine right before the launch. `gpu_pids`: processes on the cell's GPUs; None: the driver does not tell."""

    cpu: CpuState
    page_cache: PageCache
    gpu_pids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineWatched:
    """The GPUs in the measuring windows of one point; the samples are in the trial's `gpu-<workload>-c<N>.jsonl.gz`."""

    workload: str
    concurrency: int
    windows: tuple[MachineWindow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointMeasured:
    """One concurrency of one workload."""

    workload: str
    point: DecodePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerExited:
    """The server ended: by itself in `phase`, or stopped by us."""

    phase: Phase
    code: int | None
    oom_killed: bool
    by_us: bool
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """The whole log, read once more from the first byte. `complete` is False where it could not be read to its end."""

    verdict: str
    cause: Cause | None
    also: tuple[Cause, ...] = ()
    lines: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSeen:
    """What the log and the API prove to have run."""

    effective: EffectiveConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHeld:
    """After the stop somebody still held GPU memory."""

    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessFault:
    """Our own side broke: says nothing about the server. The details are in the trial's `harness.txt`."""

    problem: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A person, a signal or a crash of ours ended the trial."""

    why: str


Observation = (
    NotPlanned
    | LaunchProblem
    | ReadySeen
    | FatalLine
    | RequestFailed
    | DeadlinePassed
    | OutputSample
    | CanaryChecked
    | TextScored
    | MachineBefore
    | MachineWatched
    | PointMeasured
    | ServerExited
    | Diagnosed
    | EffectiveSeen
    | GpuHeld
    | HarnessFault
    | Interrupted
)

KINDS: dict[str, type[Any]] = {
    "not_planned": NotPlanned,
    "launch_problem": LaunchProblem,
    "ready": ReadySeen,
    "fatal_line": FatalLine,
    "request_failed": RequestFailed,
    "deadline": DeadlinePassed,
    "sample": OutputSample,
    "canary": CanaryChecked,
    "text_scored": TextScored,
    "machine_before": MachineBefore,
    "machine": MachineWatched,
    "point": PointMeasured,
    "exited": ServerExited,
    "diagnosed": Diagnosed,
    "effective": EffectiveSeen,
    "gpu_held": GpuHeld,
    "harness_fault": HarnessFault,
    "interrupted": Interrupted,
}
NAMES = {cls: name for name, cls in KINDS.items()}
