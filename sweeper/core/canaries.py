"""What canary launches found, as the record keeps it, and what they saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweeper.core.observations import CanaryChecked

BAD = frozenset({"failed", "garbage", "degraded"})
"""Verdicts of the canary that end a trial before the weights are loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """MoE backends that the engine itself rules out for one layout, with the line that says so."""

    reason: str
    line_no: int
    line: str
    backend: str | None = None
    """As the command line names it; None: every backend that is not in `but`."""
    but: tuple[str, ...] = ()

    def covers(self, backend: str) -> bool:
        """Whether this line rules the backend out."""
        return backend not in self.but if self.backend is None else backend == self.backend


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryLaunch:
    """One launch of the canary. `key`: id of the configuration over the canary; `layout`: id of its `auto`."""

    key: str
    layout: str
    label: str
    checked: CanaryChecked
    seconds: float
    log: str
    """Path of the server's log, relative to the run folder."""
    by_hand: str = ""
    """One shell line that starts the same server; empty: it could not be started."""
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the preflight of a run cost and saved. Seconds."""

    launches: int
    seconds: float
    cells: int
    failed: int
    """Cells whose verdict is the canary's: they never loaded the real weights."""
    ruled_out: int
    """Those of them that cost no launch at all."""
    start_s: float | None
    """Median start over the real weights in this run; None: there was none."""

    @property
    def saved_s(self) -> float | None:
        """Upper bound: a refused backend may have died before its weights were read."""
        return None if self.start_s is None else self.start_s * self.failed

    def to_json(self) -> dict[str, Any]:
        """The `preflight` object of the JSON report."""
        saved = self.saved_s
        return {
            "canary_launches": self.launches,
            "canary_s": round(self.seconds, 1),
            "cells": self.cells,
            "failed": self.failed,
            "ruled_out": self.ruled_out,
            "start_s": None if self.start_s is None else round(self.start_s, 1),
            "saved_s": None if saved is None else round(saved, 1),
            "net_s": None if saved is None else round(saved - self.seconds, 1),
        }

    def to_text(self) -> str:
        """Two sentences, three where the time saved is known."""
        launches = f"{self.launches} canary launch{'' if self.launches == 1 else 'es'}"
        text = f"preflight: {self.failed} of {self.cells} cells failed on the canary and never loaded the real weights"
        if self.ruled_out:
            text += f" ({self.ruled_out} of them without any launch, by the engine's own word)"
        text += f". {launches} took {self.seconds:.0f} s."
        saved = self.saved_s
        if saved is None or not self.failed:
            return text
        text += f" A start over the real weights took {self.start_s:.0f} s here: up to {saved:.0f} s saved, "
        text += f"{saved - self.seconds:+.0f} s net"
        if saved < self.seconds:
            text += f"; this preflight pays where a start takes more than {self.seconds / self.failed:.0f} s"
        return f"{text}."
