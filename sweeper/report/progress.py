"""Progress on stderr: one live line per trial on a terminal, one plain line per step elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TextIO

from sweeper.core.observations import Observation, PointMeasured
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.report.columns import number

REDRAW_S = 1.0


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
        self._set(f"{phase.value}: {detail}" if detail else phase.value)

    def observed(self, item: Observation) -> None:
        if isinstance(item, PointMeasured):
            point = item.point
            rate = point.decode_tok_s if point.decode_tok_s is not None else point.serving_tok_s
            self._set(f"{number(rate)} tok/s at {point.concurrency}")

    def verdict(self, verdict: Verdict, elapsed_s: float) -> None:
        head, self._head = self._head, ""
        self._clear()
        text = f"{head}   {self._paint(verdict.outcome)}"
        if verdict.outcome is Outcome.PASS:
            rates = [f"{number(p.decode_tok_s or p.serving_tok_s)} tok/s at {p.concurrency}" for p in verdict.points]
            text += "   " + ", ".join(rates)
        elif verdict.cause:
            text += f" in {verdict.phase.value}: {verdict.cause.id}"
        print(f"{text}   {elapsed_s:.0f} s", file=self._out, flush=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        print(text, file=self._out, flush=True)

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
            print(f"{self._head}   {step}", file=self._out, flush=True)

    def _draw(self) -> None:
        if not self._head:
            return
        wide = shutil.get_terminal_size((100, 24)).columns
        text = f"{self._head}   {self._step}   {time.monotonic() - self._begun:.0f} s"
        with self._lock:
            self._out.write("\r\x1b[K" + text[: wide - 1])
            self._out.flush()

    def _clear(self) -> None:
        if self._live:
            with self._lock:
                self._out.write("\r\x1b[K")
                self._out.flush()

    def _tick(self) -> None:
        while not self._stop.wait(REDRAW_S):
            self._draw()
