"""Progress on stderr: one live line per trial on a terminal, one plain line per step elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TextIO

from sweeper.core.observations import Observation, PointMeasured
from sweeper.core.points import DecodePoint
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.report.columns import number
from sweeper.report.model import DASH

REDRAW_S = 1.0
MIN_HEAD = 20
"""Characters of counter and label that a live line keeps, however long its step is."""


class Console:
    """Prints what a sweep does. Safe to call from one thread; a second one only redraws the elapsed time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        self._live = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self._live and "NO_COLOR" not in os.environ
        self._head = self._step = ""
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        if self._live:
            threading.Thread(target=self._tick, daemon=True, name="sweeper-progress").start()

    def close(self) -> None:
        """End the live line."""
        self._stop.set()
        self._clear()

    def trial(self, number: int, total: int, label: str, launch: str) -> None:
        self._head = f"[{number:>2}/{total}] {label}"
        self._begun = time.monotonic()
        self._set(launch)

    def phase(self, phase: Phase, detail: str) -> None:
        if detail or phase is not Phase.LAUNCH:
            # `launch 2` of the trial's own line says more than the bare phase.
            self._set(f"{phase.value}: {detail}" if detail else phase.value)

    def observed(self, item: Observation) -> None:
        if isinstance(item, PointMeasured):
            self._set(_rate(item.point))

    def verdict(self, verdict: Verdict, elapsed_s: float) -> None:
        head, self._head = self._head, ""
        text = f"{head}   {self._paint(verdict.outcome)}"
        if verdict.outcome is Outcome.PASS:
            text += "   " + ", ".join(_rate(point) for point in verdict.points)
        elif verdict.cause:
            text += f" in {verdict.phase.value}: {verdict.cause.id}"
        self._line(f"{text}   {elapsed_s:.0f} s")

    def note(self, text: str) -> None:
        """A line of its own."""
        self._line(text)

    def _paint(self, outcome: Outcome) -> str:
        if not self._colour:
            return outcome.value
        code = {"PASS": "32", "FAIL": "31"}.get(outcome.value, "33")
        return f"\x1b[{code}m{outcome.value}\x1b[0m"

    def _set(self, step: str) -> None:
        changed, self._step = step != self._step, step
        if self._live:
            self._draw()
        elif changed and self._head:
            self._line(f"{self._head}   {step}")

    def _draw(self) -> None:
        with self._lock:
            if self._head:
                wide = shutil.get_terminal_size((100, 24)).columns - 1
                tail = f"   {time.monotonic() - self._begun:.0f} s"
                # The seconds tell that something moves, the step what: a long label makes room for them.
                head = _cut(self._head, max(MIN_HEAD, wide - len(tail) - len(self._step) - 3))
                self._out.write("\r\x1b[K" + f"{head}   {self._step}"[: max(0, wide - len(tail))] + tail)
                self._out.flush()

    def _line(self, text: str) -> None:
        with self._lock:
            self._out.write(("\r\x1b[K" if self._live else "") + text + "\n")
            self._out.flush()

    def _clear(self) -> None:
        if self._live:
            with self._lock:
                self._out.write("\r\x1b[K")
                self._out.flush()

    def _tick(self) -> None:
        while not self._stop.wait(REDRAW_S):
            self._draw()


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 3] + "..."


def _rate(point: DecodePoint) -> str:
    if point.against is not None:
        return f"{'no valid figure' if point.sent else 'not sent'} at {point.concurrency} (ISL {point.isl or DASH})"
    return f"{number(point.tok_s)} tok/s at {point.concurrency}"
