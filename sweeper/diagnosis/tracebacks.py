"""Python tracebacks as they pass by: which process, which exception, and where it began.

Needed for deaths that no signature explains: the first traceback of the innermost process is what a person should read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sweeper.engines.lines import CleanLine, depth_of

HEAD = "Traceback (most recent call last)"
FRAME = '", line '
"""Part of every frame: excerpts often begin below the head."""
LONGEST = 400
"""Lines after which a traceback without an exception line is given up."""
KEPT = 64
"""Tracebacks kept per log; later ones are repeats of the same death."""
SHOWN = 14
"""Last lines kept of each, for display."""

_EXCEPTION = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?::\s*(?P<message>.*))?$")
_FRAME = re.compile(r'^\s*File "[^"]+", line \d+, in \S')
_HARMLESS = {"KeyboardInterrupt", "SystemExit", "CancelledError", "GeneratorExit", "StopIteration", "BrokenPipeError"}
_RERAISE = (
    "Engine core initialization failed", "EngineDeadError", "EngineCore encountered an issue",
    "Worker failed with error", "WorkerProc initialization failed", "Engine process failed to start",
    "Engine loop has died", "Background loop", "MQEngineDeadError", "RayTaskError", "ActorDiedError",
    "ray.exceptions", "ProcessExitedException", "ChildFailedError", "Rank 0 scheduler died",
    "Initialization failed. Please see the error messages above", "Executor worker returned error",
    "See root cause above", "See stack trace above",
)  # fmt: skip


@dataclass(slots=True)
class Trace:
    """One traceback. `end` is the number of its exception line; None while it is still being read."""

    start: int
    process: str | None
    end: int | None = None
    exception: str = ""
    raw: str = ""
    tail: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        return depth_of(self.process)

    @property
    def harmless(self) -> bool:
        """Ended by a stop, not by a fault."""
        return self.exception.split(":")[0].rsplit(".", 1)[-1] in _HARMLESS

    @property
    def reraise(self) -> bool:
        """Only says that something else failed."""
        return any(text in self.exception for text in _RERAISE)


class TraceReader:
    """Fed with every line while `open`; the matcher calls `begin` on each head line."""

    def __init__(self) -> None:
        self.done: list[Trace] = []
        self._open: dict[str | None, Trace] = {}

    @property
    def open(self) -> bool:
        return bool(self._open)

    def begin(self, no: int, line: CleanLine) -> None:
        """A head line was seen."""
        if len(self.done) + len(self._open) < KEPT:
            self._open[line.process] = Trace(start=no, process=line.process)

    def frame(self, no: int, line: CleanLine) -> None:
        """A frame was seen; it begins a traceback whose head is missing."""
        if line.process not in self._open and _FRAME.match(line.text):
            self.begin(no, line)

    def line(self, no: int, line: CleanLine, raw: str) -> None:
        """Any line after a head."""
        trace = self._open.get(line.process)
        if trace is None:
            for process in [key for key, value in self._open.items() if no - value.start > LONGEST]:
                self._close(process)
            return
        if no == trace.start:
            return
        trace.tail = [*trace.tail[-SHOWN:], raw]
        text = line.text
        if text and not text[0].isspace() and not text.startswith(("^", "~")):
            match = _EXCEPTION.match(text)
            if match is not None and (
                match["message"] is not None or "." in match["type"] or match["type"][0].isupper()
            ):
                trace.end, trace.exception, trace.raw = no, text, raw
            self._close(line.process)
        elif no - trace.start > LONGEST:
            self._close(line.process)

    def finish(self) -> None:
        """The log ended inside a traceback."""
        for process in list(self._open):
            self._close(process)

    def _close(self, process: str | None) -> None:
        self.done.append(self._open.pop(process))
