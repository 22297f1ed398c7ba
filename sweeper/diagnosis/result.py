"""What a diagnosis says, and its JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sweeper.core.effective import EffectiveConfig
from sweeper.core.verdicts import Cause, Phase
from sweeper.diagnosis.signature import Severity

Verdict = Literal["fatal", "degraded", "benign", "unknown-exit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One line that proved one signature, reported while the log is read."""

    id: str
    severity: Severity
    line_no: int
    line: str
    phase: Phase
    fatal_now: bool
    """Stop the launch: a cause (not a re-raise) that is fatal in this phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Also:
    """Something else that was seen: folded over ranks, threads and repeats."""

    id: str
    severity: Severity
    count: int
    first_line_no: int
    ranks: tuple[int, ...] = ()
    means: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The answer for one log. `cause` is None where nothing is wrong."""

    engine: str | None
    engine_version: str | None
    verdict: Verdict
    cause: Cause | None
    also: tuple[Also, ...] = ()
    effective: EffectiveConfig = field(default_factory=EffectiveConfig)
    lines: int = 0
    count: int = 0
    """Lines that say the same as the cause's."""
    ranks: tuple[int, ...] = ()
    """Ranks that said it."""
    evidence: tuple[tuple[str, str], ...] = ()
    excerpt: tuple[str, ...] = ()
    """For `unknown-exit`: the end of the first traceback of the innermost process."""
    complete: bool = True
    """False where the log could not be read to its end."""
    problem: str = ""

    def to_json(self, file: str = "") -> dict[str, Any]:
        """The object that `sweeper diagnose --json` prints for one file (schema 1)."""
        cause = self.cause
        return {
            "schema": 1,
            "file": file,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "verdict": self.verdict,
            "cause": None
            if cause is None
            else {
                "id": cause.id,
                "line_no": cause.line_no,
                "line": cause.line,
                "means": cause.means,
                "try": cause.try_,
                "source": cause.source,
                "count": self.count,
                "ranks": list(self.ranks),
                "evidence": dict(self.evidence),
            },
            "also": [
                {
                    "id": a.id,
                    "count": a.count,
                    "first_line_no": a.first_line_no,
                    "severity": a.severity,
                    "ranks": list(a.ranks),
                }
                for a in self.also
            ],
            "effective": asdict(self.effective),
            "lines": self.lines,
            "complete": self.complete,
        }
