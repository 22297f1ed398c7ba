"""Workloads by name: each re-runs one publication's protocol. Pure data; tables in presets_tables.py."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sweeper.core.errors import RecordUnusable, UsageError
from sweeper.core.points import DecodePoint
from sweeper.core.values import Workload

Shape = Literal["window", "closed", "waves", "open", "runs", "phases"]
"""How requests are sent.

window  one wave of `concurrency` streams, cut when the window is full
closed  `requests` requests, always `concurrency` of them live, all run to their end
waves   the same in waves that wait for their slowest
open    Poisson arrivals at a given rate
runs    `requests` waves one after the other, each with its own energy reading
phases  waves of one token, then waves of 1 + osl tokens; the difference is the decode phase
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A protocol: what is sent, in which shape, over which endpoint."""

    name: str
    title: str
    shape: Shape
    workloads: tuple[Workload, ...]
    chat: bool = False
    """/v1/chat/completions instead of /v1/completions."""
    phase_s: float = 12.0
    """Shortest time of one energy phase: the counter moves every 20-100 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigure:
    """One repetition inside one launch. `phase`: e2e, prefill or decode; joules None without a meter."""

    phase: str
    batch: int
    osl: int
    seconds: float
    tokens: float
    """Output tokens of the repetition (prefill: prompt tokens)."""
    calls: int = 1
    """Waves averaged into this figure; seconds, tokens and joules are per wave."""
    joules: float | None = None
    mean_w: float | None = None
    power_share: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What `measure` gives: points, raw records (JSON-able) and, for energy presets, the repetitions.

    The repetitions are among the records too, as `{"run": {...}}`; `runs_of` reads them back from a store.
    """

    points: list[DecodePoint]
    requests: list[dict[str, Any]]
    runs: list[RunFigure] = field(default_factory=list)


def runs_of(records: Sequence[Mapping[str, Any]]) -> list[RunFigure]:
    """Repetitions out of stored records, in order. Keys of a newer version are ignored, what is none is left out."""
    from sweeper.core import codec  # a load run starts without what only a store needs

    found = []
    for record in records:
        with suppress(RecordUnusable):
            found += [codec.load(RunFigure, record["run"])] if "run" in record else []
    return found


def _rungs() -> tuple[Workload, ...]:
    return tuple(
        Workload(
            name=f"ctx{n}", preset="context-ladder", isl=n, osl=128, concurrency=(1,), window_s=600.0, warmup_s=1.0
        )
        for n in (2048, 4096, 8192, 16384, 28672)
    )


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="sustained-decode",
            title="Sustained decode (P1)",
            shape="window",
            workloads=(Workload(name="decode", preset="sustained-decode", isl=128, osl=1024, concurrency=(1,)),),
        ),
        Preset(
            name="serving-16x64x256",
            title="Serving, 64 requests, 16 at a time, 256 tokens (P5)",
            shape="closed",
            chat=True,
            workloads=(
                Workload(
                    name="serving", preset="serving-16x64x256", isl=64, osl=256, concurrency=(16,), requests=64,
                    window_s=600.0,
                ),
            ),
        ),
        Preset(
            name="context-ladder",
            title="Context ladder, prefill and generation per rung (P4)",
            shape="window",
            workloads=_rungs(),
        ),
        Preset(
            name="energy-e2e",
            title="End-to-end energy, batch 1, 10 runs (P2)",
            shape="runs",
            workloads=tuple(
                Workload(name=f"e2e{n}", preset="energy-e2e", isl=128, osl=n, concurrency=(1,), requests=10)
                for n in (256, 512)
            ),
        ),
        Preset(
            name="energy-phases",
            title="Energy of prefill and of 32 decoded tokens, apart (P3)",
            shape="phases",
            workloads=(Workload(name="phases", preset="energy-phases", isl=128, osl=32, concurrency=(1, 8)),),
        ),
    )
}  # fmt: skip


def distinct(workloads: Iterable[Workload]) -> tuple[Workload, ...]:
    """Without those that ask the same under another name: five rungs with one length written over theirs are one."""
    found: dict[Workload, Workload] = {}
    for one in workloads:
        found.setdefault(replace(one, name=one.preset), one)
    return tuple(found.values()) if len(found) > 1 else tuple(found)


def preset(name: str) -> Preset:
    """The preset of that name. UsageError when there is none."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        raise UsageError(
            f"no preset '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""),
            hint="Presets: " + ", ".join(PRESETS),
        )
    return PRESETS[name]
