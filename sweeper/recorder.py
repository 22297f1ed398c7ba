"""Writes what a trial reports into the run's record, and passes it on to the live line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sweeper import gpuwindows
from sweeper.core import codec
from sweeper.core.canaries import CanaryLaunch
from sweeper.core.errors import SweeperError
from sweeper.core.gputrace import GpuTrace
from sweeper.core.observations import NAMES, Observation
from sweeper.core.ports import Clock, Launch
from sweeper.core.values import LaunchPlan
from sweeper.core.verdicts import Phase, Verdict
from sweeper.probes.machine.recorded import write_traces
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog


class Progress(Protocol):
    """The live line; every method may do nothing."""

    def trial(self, number: int, total: int, label: str, launch: str) -> None: ...

    def phase(self, phase: Phase, detail: str) -> None: ...

    def observed(self, item: Observation) -> None: ...

    def verdict(self, verdict: Verdict, elapsed_s: float) -> None: ...

    def note(self, text: str) -> None: ...


class Recorder:
    """The sink of one trial."""

    def __init__(self, log: EventLog, run: rundir.RunDir, trial: str, clock: Clock, progress: Progress) -> None:
        self._log, self._run, self._trial, self._clock, self._progress = log, run, trial, clock, progress
        self.observed: list[Observation] = []

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """One line of the record, under this trial."""
        self._log.append(kind, data, utc=self._clock.utc(), mono_s=self._clock.mono_s(), trial=self._trial)

    def observe(self, item: Observation) -> None:
        self.observed.append(item)
        self.event(NAMES[type(item)], codec.dump(item))
        self._progress.observed(item)

    def launched(self, record: Launch, plan: LaunchPlan) -> None:
        data = codec.dump(record)
        self.event("launched", data)
        rundir.write_json(self._run.trial(self._trial) / "plan.json", {"launch": data, "plan": codec.dump(plan)})

    def canary(self, launch: CanaryLaunch) -> None:
        """Kept whole, so that a resumed sweep need not launch it again."""
        self.event("canary_launched", codec.dump(launch))

    def phase(self, phase: Phase, detail: str = "") -> None:
        self.event("phase", {"name": phase.value, "detail": detail})
        self._progress.phase(phase, detail)

    def requests(self, workload: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            tagged = [{"workload": workload, **row} for row in rows]
            rundir.append_requests(self._run.trial(self._trial) / "requests.jsonl.gz", tagged)

    def gpu_traces(self, workload: str, concurrency: int, traces: Sequence[GpuTrace]) -> None:
        """A trace that cannot be kept costs judging its energy again, not the run."""
        name = gpuwindows.file_name(workload, concurrency)
        try:
            write_traces(self._run.trial(self._trial) / name, traces)
        except (OSError, SweeperError) as problem:
            self.event("note", {"text": f"trials/{self._trial}/{name} could not be written: {problem}"})

    def post_mortem(self, facts: Mapping[str, Any]) -> None:
        rundir.write_json(self._run.trial(self._trial) / "postmortem.json", facts)
