"""Published figures as values: what was claimed, of which kind, under which conditions, and what is not known.

A claim is a number with its conditions; a figure is our own number with its conditions. `claims_compare` says whether
the two may be held against each other, `claims_limits` what physics says, `claims_judge` what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal

from sweeper.core.points import TokenSource
from sweeper.core.verdicts import Interval

Kind = Literal[
    "output", "total", "peak", "end-to-end", "per-user", "prefill", "energy", "power", "acceptance", "score",
    "latency", "memory", "ratio", "compute", "count",
]  # fmt: skip
"""What the number counts. output: sustained output tokens, all streams. total: input and output tokens together.
peak: the best moment. end-to-end: output tokens over wall time, prefill and drain included. per-user: one stream of
several. energy, power, acceptance, latency, memory: as their unit says. score: accuracy or perplexity. ratio: against
a stated reference. compute and count: what the unit says."""

UNITS: Mapping[str, tuple[str, ...]] = {
    "output": ("tok/s",),
    "total": ("tok/s",),
    "peak": ("tok/s",),
    "end-to-end": ("tok/s",),
    "per-user": ("tok/s",),
    "prefill": ("tok/s",),
    "energy": ("J/1k tok", "J/call", "J/32 tok"),
    "power": ("W", "% of limit"),
    "acceptance": ("%", "tokens/step"),
    "score": ("share", "%", "PPL", "NLL", "points", "right of 40"),
    "latency": ("ms", "s", "ms/token"),
    "memory": ("GB", "GB of weights"),
    "ratio": ("x", "%"),
    "compute": ("TFLOPS",),
    "count": ("kernels",),
}
"""Units that each kind may have."""

LOWER_IS_BETTER = frozenset({"energy", "power", "latency", "memory"})
RATES = frozenset({"output", "peak", "end-to-end", "per-user"})
"""Kinds that the speed of light bounds: they count output tokens only."""

COUNTED = frozenset({"output", "total", "peak", "end-to-end", "per-user", "energy", "latency"})
"""Kinds that divide by our count of output tokens."""
TIMED = frozenset({"output", "peak", "per-user", "latency"})
"""Those that need to know when each token came, not only how many there were."""

Bound = Literal["exact", "up-to", "at-least", "ceiling"]
"""exact: the figure itself. up-to: the best that was seen; held against our best window. at-least: a floor that is
promised. ceiling: said to be the most that is possible."""


class ClaimVerdict(StrEnum):
    """What holding a claim against own figures gives."""

    MET = "met"
    NOT_MET = "not met"
    ABOVE = "above"
    BELOW = "below"
    NOT_COMPARABLE = "not comparable"
    UNKNOWN = "unknown condition"
    IMPLAUSIBLE = "implausible"
    MISLABELLED = "mislabelled"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a figure was obtained under, in the order in which differences are reported. None: not stated.

    Lengths in tokens; power in watts per GPU.
    """

    model: str | None = None
    quantization: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    mig: bool | None = None
    engine: str | None = None
    moe_backend: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    speculative: str | None = None
    """Method, or `none`."""
    draft_tokens: int | None = None
    """Drafted per step; None with a method: not stated."""
    acceptance_length: float | None = None
    acceptance_rate: str | None = None
    concurrency: int | None = None
    isl: int | None = None
    osl: int | None = None
    context: int | None = None
    """Tokens a sequence already holds."""
    preset: str | None = None
    """Protocol, by the name of ours that re-runs it."""
    engine_version: str | None = None
    image: str | None = None
    """Image or fork."""
    attention_backend: str | None = None
    kv_cache: str | None = None
    all_reduce: str | None = None
    p2p: bool | None = None
    thinking: bool | None = None
    prompts: str | None = None
    power_limit_w: float | None = None
    os: str | None = None
    """linux or wsl2."""
    prefix_cache: str | None = None
    other: str | None = None
    """Stated, but nothing a program can compare."""


NAMES: tuple[str, ...] = tuple(f.name for f in fields(Conditions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a claim was published. `date` as written there: 2026-03-12, 2026-03 or 2026."""

    title: str
    where: str
    date: str | None = None
    who: str | None = None
    via: str | None = None
    """Where the figure was read when the original could not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One published number or range."""

    id: str
    table: str
    """Which published table or list it is a figure of."""
    low: float
    high: float
    """Equal to `low` for a single number."""
    spread: float | None
    """One standard deviation, where the source gives one."""
    kind: Kind
    unit: str
    bound: Bound
    promised: bool
    """True: said to be what one gets. False: somebody's measurement, which a different one does not refute."""
    conditions: Conditions
    unknown: tuple[str, ...]
    """Conditions that the source does not state and that matter."""
    source: Source
    row: str = ""
    """The row or wording it stands for."""
    note: str = ""
    retracted: str | None = None
    """Who took it back and why."""
    same_as: str | None = None
    """Id of the claim that this is a retelling of; it is not counted twice."""
    reading_of: str | None = None
    """Id of the claim that this is one way of reading; None: a figure of its own."""
    path: str = ""
    line: int | None = None

    def claimed(self) -> float | list[float]:
        """The number, or both ends of the range."""
        return self.low if self.low == self.high else [self.low, self.high]

    def text(self) -> str:
        """`39-40 tok/s`, `2660.83 J/1k tok`."""
        dash = "-" if self.low >= 0 else " to "
        value = f"{self.low:g}" if self.low == self.high else f"{self.low:g}{dash}{self.high:g}"
        prefix = {"up-to": "up to ", "at-least": "at least ", "ceiling": "at most "}.get(self.bound, "")
        return f"{prefix}{value} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Our own number of one kind: mean over launches, its interval, the best single one."""

    value: float
    interval: Interval | None = None
    launches: int = 1
    best: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Everything measured on one cell under one workload. `readings` by (kind, unit)."""

    label: str
    conditions: Conditions
    name: str | None = None
    """Name that the matrix gives the cell, such as the published row it stands for."""
    readings: Mapping[tuple[str, str], Reading] = field(default_factory=dict)
    cell_id: str | None = None
    failed: str | None = None
    """Why there is no figure: outcome, phase and cause."""
    counted: TokenSource | None = None
    """How its tokens were counted; None: not said, as where nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """The verdict of one claim and the reason for it."""

    claim: Claim
    verdict: ClaimVerdict
    why: str
    figure: Figure | None = None
    """The figure it was held against, or the closest one."""
    reading: Reading | None = None
    difference: str | None = None
    """Name of the first condition that differs."""
    ask: tuple[str, ...] = ()
    """What the claim's author has to be asked, or the run has to record."""
    caveats: tuple[str, ...] = ()
    """Conditions taken as equal without proof, and what limits say."""
