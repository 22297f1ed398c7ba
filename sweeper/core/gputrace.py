"""What a GPU sampler recorded: facts per GPU and samples in time order. Judged by `core.energy`.

Times are seconds of one monotonic clock; power in watts, counters in millijoules as NVML gives them, clocks in MHz,
temperature in degrees Celsius, memory in bytes. `None` is "the driver did not say", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

SCHEMA = 1

SW_POWER_CAP = 0x04
HW_SLOWDOWN = 0x08
SW_THERMAL = 0x20
HW_THERMAL = 0x40
HW_POWER_BRAKE = 0x80
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference, nvmlClocksEventReasons)."""

PowerSource = Literal["instant", "average"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One GPU of the cell."""

    gpu: str
    """As the caller named it: index or UUID."""
    name: str | None = None
    uuid: str | None = None
    power_limit_w: float | None = None
    """Enforced limit."""
    memory_bytes: int | None = None
    max_sm_mhz: int | None = None
    driver: str | None = None
    power_source: PowerSource | None = None
    """`average`: the driver's one-second mean, which lags behind the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """One reading of one GPU. Slow facts (clocks to processes) are read less often than power and are None between."""

    t_s: float
    gpu: int
    """Position in `GpuTrace.gpus`."""
    power_w: float | None = None
    energy_mj: int | None = None
    sm_mhz: int | None = None
    mem_mhz: int | None = None
    temp_c: int | None = None
    reasons: int | None = None
    used_bytes: int | None = None
    pids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTrace:
    """Samples of one window. `why` set: nothing could be sampled, and this is the reason."""

    gpus: tuple[GpuFacts, ...] = ()
    samples: tuple[GpuSample, ...] = ()
    window_s: tuple[float, float] = (0.0, 0.0)
    """Opening and closing time; samples may reach beyond both."""
    own_pids: tuple[int, ...] | None = None
    """Processes of the cell on these GPUs. None: unknown; then those present at the opening count as the cell's."""
    strangers: tuple[int, ...] = ()
    """Processes that were on these GPUs before the cell's server was launched."""
    idle_w: float | None = None
    """Of all GPUs together, before the first request."""
    tokens: int | None = None
    """Output tokens between opening and closing."""
    why: str | None = None

    @property
    def seconds(self) -> float:
        return self.window_s[1] - self.window_s[0]


_SHORT = {
    "t_s": "t",
    "gpu": "gpu",
    "power_w": "w",
    "energy_mj": "mj",
    "sm_mhz": "sm",
    "mem_mhz": "mem",
    "temp_c": "c",
    "reasons": "reasons",
    "used_bytes": "used",
    "pids": "pids",
}


def to_rows(trace: GpuTrace) -> list[dict[str, Any]]:
    """JSON-able rows, one a line in a trace file: a header, then one row per sample without its unknown fields."""
    header = {
        "schema": SCHEMA,
        "kind": "gpu-trace",
        "window_s": list(trace.window_s),
        "own_pids": None if trace.own_pids is None else list(trace.own_pids),
        "strangers": list(trace.strangers),
        "idle_w": trace.idle_w,
        "tokens": trace.tokens,
        "why": trace.why,
        "gpus": [{k: v for k, v in asdict(facts).items() if v is not None} for facts in trace.gpus],
    }
    return [header, *(_sample_row(sample) for sample in trace.samples)]


def _sample_row(sample: GpuSample) -> dict[str, Any]:
    row = {short: getattr(sample, name) for name, short in _SHORT.items()}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in row.items() if v is not None}


def traces_of_rows(rows: Sequence[Mapping[str, Any]]) -> list[GpuTrace]:
    """Every window of a file: each begins with its header. Raises ValueError as `from_rows`."""
    heads = [n for n, row in enumerate(rows) if row.get("kind") == "gpu-trace"]
    if not heads or heads[0] != 0:
        raise ValueError("row 1: not the header of a GPU trace")
    return [from_rows(rows[begin:end], first=begin + 1) for begin, end in pairwise([*heads, len(rows)])]


def from_rows(rows: Sequence[Mapping[str, Any]], *, first: int = 1) -> GpuTrace:
    """The inverse of `to_rows`. Raises ValueError naming what is wrong with which row (counted from `first`)."""
    if not rows or rows[0].get("kind") != "gpu-trace":
        raise ValueError(f"row {first}: not the header of a GPU trace")
    head = rows[0]
    if head.get("schema") != SCHEMA:
        raise ValueError(f"row {first}: schema {head.get('schema')!r}, this version reads {SCHEMA}")
    known = {f.name for f in fields(GpuFacts)}
    try:
        gpus = tuple(GpuFacts(**{k: v for k, v in g.items() if k in known}) for g in head["gpus"])
        window = (float(head["window_s"][0]), float(head["window_s"][1]))
    except (KeyError, TypeError, IndexError, ValueError) as problem:
        raise ValueError(f"row {first}: {problem}") from problem
    own = head.get("own_pids")
    return GpuTrace(
        gpus=gpus,
        samples=tuple(_sample(row, n, len(gpus)) for n, row in enumerate(rows[1:], start=first + 1)),
        window_s=window,
        own_pids=None if own is None else tuple(own),
        strangers=tuple(head.get("strangers") or ()),
        idle_w=head.get("idle_w"),
        tokens=head.get("tokens"),
        why=head.get("why"),
    )


def _sample(row: Mapping[str, Any], n: int, gpus: int) -> GpuSample:
    try:
        values: dict[str, Any] = {name: row.get(short) for name, short in _SHORT.items()}
        values["pids"] = None if values["pids"] is None else tuple(values["pids"])
        sample = GpuSample(**{**values, "t_s": float(row["t"]), "gpu": int(row["gpu"])})
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"row {n}: {problem}") from problem
    if not 0 <= sample.gpu < gpus:
        raise ValueError(f"row {n}: GPU {sample.gpu} is not in the header")
    return sample
