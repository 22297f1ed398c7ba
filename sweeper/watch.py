"""Keep an eye on a server while something else is being done with it.

The work runs in a thread; this thread reads the log as it grows, feeds the matcher, polls the process and keeps the
deadline. Whatever ends the trial first becomes an observation. The poll interval bounds how late an exit or a fatal
line is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sweeper.core.boot import phase_of
from sweeper.core.errors import SweeperError
from sweeper.core.observations import DeadlinePassed, FatalLine, Observation, RequestFailed, ServerExited
from sweeper.core.ports import Clock, ServerHandle
from sweeper.core.verdicts import Phase
from sweeper.probes.priority import keep_time

POLL_S = 0.1
DYING_S = 6.0
"""A request that failed is often the first sign of a death whose cause reaches the log a moment later."""

READ_BYTES = 1 << 20

T = TypeVar("T")


class LiveMatch(Protocol):
    """What the watcher needs of a match."""

    id: str
    line_no: int
    line: str
    fatal_now: bool


class LiveMatcher(Protocol):
    """What the watcher needs of the matcher."""

    def feed(self, data: bytes) -> list[Any]: ...

    def set_phase(self, phase: Phase) -> None: ...


class TrialEnded(Exception):
    """The trial is over before its work was done; `observed` says why."""

    def __init__(self, *observed: Observation) -> None:
        super().__init__("trial ended")
        self.observed = observed


class LogTail:
    """Bytes appended to a file since the last call. A file that does not exist yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read(READ_BYTES)
        except OSError:
            return b""
        self._offset += len(data)
        return data


class Watch:
    """One server under observation."""

    def __init__(
        self,
        handle: ServerHandle,
        log: Path,
        matcher: LiveMatcher,
        clock: Clock,
        on_boot: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._handle = handle
        self._tail = LogTail(log)
        self._matcher = matcher
        self._clock = clock
        self._on_boot = on_boot
        self._boot = ""
        self.last_line = ""
        self._last_line_s = clock.mono_s()
        self._started_s = clock.mono_s()

    def during(self, phase: Phase, work: Callable[[threading.Event], T], *, deadline_s: float) -> T:
        """Do `work` while watching. Raises TrialEnded on a fatal line, an exit, a failed request or the deadline.

        `work` receives an event that is set when nobody waits for it any more.
        """
        self._matcher.set_phase(phase)
        keep_time()
        cancel = threading.Event()
        box: dict[str, Any] = {}

        def body() -> None:
            keep_time()
            try:
                box["value"] = work(cancel)
            except BaseException as error:
                box["error"] = error

        thread = threading.Thread(target=body, daemon=True, name=f"sweeper-{phase}")
        begun_s = self._clock.mono_s()
        thread.start()
        try:
            while thread.is_alive():
                self._look(phase)
                if self._clock.mono_s() - begun_s > deadline_s:
                    raise TrialEnded(self._late(phase, begun_s))
                thread.join(POLL_S)
        finally:
            cancel.set()
        self._look(phase)
        value: T = self._result(phase, box)
        return value

    def _result(self, phase: Phase, box: dict[str, Any]) -> Any:  # the type is that of `work`
        error = box.get("error")
        if error is None:
            return box["value"]
        if isinstance(error, SweeperError):
            self._wait_for_death(phase)
            raise TrialEnded(RequestFailed(phase=phase, problem=error.message))
        raise error

    def _wait_for_death(self, phase: Phase) -> None:
        until_s = self._clock.mono_s() + DYING_S
        while self._clock.mono_s() < until_s:
            self._look(phase)
            self._clock.sleep(POLL_S)

    def _look(self, phase: Phase) -> None:
        fatal = self.pump(phase)
        if fatal:
            raise TrialEnded(fatal)
        ended = self._handle.poll()
        if ended is not None:
            self.pump(phase)
            raise TrialEnded(
                ServerExited(phase=phase, code=ended.code, oom_killed=ended.oom_killed, by_us=False, how=ended.how)
            )

    def pump(self, phase: Phase) -> FatalLine | None:
        """Read what the server wrote since the last call; the first fatal line of it, if any."""
        fatal: FatalLine | None = None
        while data := self._tail.read():
            self._note(data)
            for match in self._matcher.feed(data):
                if match.fatal_now and fatal is None:
                    after_s = round(self._clock.mono_s() - self._started_s, 3)
                    fatal = FatalLine(id=match.id, phase=phase, line_no=match.line_no, line=match.line, after_s=after_s)
        return fatal

    def _note(self, data: bytes) -> None:
        lines = data.decode("utf-8", "replace").splitlines()
        text = next((line for line in reversed(lines) if line.strip()), "")
        if text:
            self.last_line, self._last_line_s = text[-400:], self._clock.mono_s()
        for line in lines:
            name = phase_of(line)
            if name and name != self._boot:
                self._boot = name
                self._on_boot(name)

    def _late(self, phase: Phase, begun_s: float) -> DeadlinePassed:
        now_s = self._clock.mono_s()
        return DeadlinePassed(
            phase=phase, after_s=now_s - begun_s, last_line=self.last_line, silent_s=now_s - self._last_line_s
        )
