"""Outcomes, causes, verdicts, ranking."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sweeper.core.effective import EffectiveConfig
from sweeper.core.points import DecodePoint


class Outcome(StrEnum):
    """What became of a cell. Only PASS is ranked."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIP = "SKIP"
    ABORTED = "ABORTED"


class Phase(StrEnum):
    """Where it happened, in the order in which a trial goes through them."""

    PLAN = "plan"
    LAUNCH = "launch"
    READY = "ready"
    CANARY = "canary"
    SANITY = "sanity"
    MEASURE = "measure"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A named cause with the line that proves it.

    `id` is a slug of the failure taxonomy, or one of ours for what no log can say (`garbage-output`, `ready-timeout`).
    """

    id: str
    means: str
    try_: str = ""
    source: str = ""
    line_no: int | None = None
    line: str | None = None
    log: str | None = None
    """Path of the log, relative to the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a reader must know about a cell that did not fail it: requested and effective differ, underutilised."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judged outcome of one trial (one launch of one cell)."""

    cell_id: str
    trial: str
    outcome: Outcome
    phase: Phase
    cause: Cause | None = None
    also: tuple[Cause, ...] = ()
    findings: tuple[Finding, ...] = ()
    effective: EffectiveConfig | None = None
    points: tuple[DecodePoint, ...] = ()
    elapsed_s: float | None = None
    policy_version: int = 1

    @property
    def sound(self) -> tuple[DecodePoint, ...]:
        """The points that hold. A launch that passed has at least one; the others are named and not ranked."""
        return tuple(point for point in self.points if point.against is None)

    @property
    def unproven(self) -> tuple[DecodePoint, ...]:
        """Points that were measured and do not hold. A rung that was never sent is no failure of a measurement."""
        return tuple(point for point in self.points if point.against is not None and point.sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval; `level` as a share."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedRow:
    """One place of a ranking. Cells that the evidence does not separate share `place`."""

    place: int
    tied: bool
    provisional: bool
    """True with fewer than two launches: no spread is known."""
    cell_id: str
    label: str
    decode_tok_s: float
    interval: Interval | None
    launches: int
    ratio_to_best: float
    ratio_interval: Interval | None = None
    concurrency: int = 1
    workload: str = "decode"
    needs_launches: int | None = None
    """Launches per cell that would separate it from the best; None: separated, or unknowable from one launch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Rows for one workload at one concurrency, best first; `unranked` holds the rest with its verdict."""

    workload: str
    concurrency: int
    rows: tuple[RankedRow, ...]
    notes: tuple[str, ...] = ()
    unranked: tuple[Verdict, ...] = field(default=())
