"""Unlike things do not mix: launches are averaged only under equal conditions, runs are compared with theirs named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from sweeper.core.errors import SweeperError
from sweeper.core.stats import ALPHA, NOISE, LaunchStats, compare, describe, differs, holm
from sweeper.core.verdicts import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a figure was measured under. None: not recorded, which contradicts nothing."""

    workload: str | None = None
    """Preset, lengths and concurrency as one text."""
    image_digest: str | None = None
    engine_version: str | None = None
    gpu: str | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One launch's figure under its conditions."""

    trial: str
    value: float
    conditions: Conditions


class NotComparable(SweeperError):
    """Figures measured under different conditions were about to be averaged. `field` names the first difference."""

    def __init__(self, field: str, first: Trial, second: Trial) -> None:
        one, two = getattr(first.conditions, field), getattr(second.conditions, field)
        name = field.replace("_", " ")
        super().__init__(
            f"{first.trial} and {second.trial} cannot be averaged: {name} {one} and {two}",
            hint="Measure the cell again under one set of conditions: sweeper run MATRIX",
        )
        self.field = field


def differences(a: Conditions, b: Conditions) -> tuple[str, ...]:
    """Fields that are known on both sides and differ."""
    return tuple(
        f.name
        for f in fields(Conditions)
        if None not in (getattr(a, f.name), getattr(b, f.name)) and getattr(a, f.name) != getattr(b, f.name)
    )


def aggregate(trials: Sequence[Trial]) -> LaunchStats:
    """Mean and spread over launches of one cell. Raises NotComparable when conditions differ, ValueError when empty."""
    for i, first in enumerate(trials):
        for second in trials[i + 1 :]:
            if apart := differences(first.conditions, second.conditions):
                raise NotComparable(apart[0], first, second)
    return describe([trial.value for trial in trials])


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One cell under one workload in two runs. `ratio` = B / A."""

    cell_id: str
    label: str
    workload: str
    a: LaunchStats
    b: LaunchStats
    ratio: float
    interval: Interval | None
    p: float | None
    """Adjusted over all cells compared (Holm)."""
    verdict: str
    """faster, slower, same; with "?" where a side has one launch and no test is possible."""
    conditions: tuple[str, ...] = ()
    """What differed between the two, e.g. `driver 575.51 -> 580.10`."""


Key = tuple[str, str]
"""(cell id, workload)."""


def compare_runs(
    a: Mapping[Key, Sequence[Trial]],
    b: Mapping[Key, Sequence[Trial]],
    *,
    labels: Mapping[str, str],
    noise: float = NOISE,
) -> tuple[Change, ...]:
    """Cells that both runs measured under the same workload, in A's order. Raises NotComparable within a run."""
    keys = [key for key in a if b.get(key) and a[key]]
    pairs = [(aggregate(a[key]), aggregate(b[key])) for key in keys]
    tests = [compare([t.value for t in b[key]], [t.value for t in a[key]]) for key in keys]
    known = [i for i, test in enumerate(tests) if test.p is not None]
    adjusted = dict(zip(known, holm([tests[i].p or 0.0 for i in known]), strict=True))
    changes = []
    for i, (key, (stats_a, stats_b), test) in enumerate(zip(keys, pairs, tests, strict=True)):
        p = adjusted.get(i)
        moved = differs(test, noise=noise, alpha=ALPHA, p=p)
        word = ("faster" if test.ratio > 1 else "slower") if moved else "same"
        changes.append(
            Change(
                cell_id=key[0],
                label=labels.get(key[0], key[0]),
                workload=key[1],
                a=stats_a,
                b=stats_b,
                ratio=test.ratio,
                interval=test.interval,
                p=p,
                verdict=word if p is not None else f"{word}?",
                conditions=_told(a[key], b[key]),
            )
        )
    return tuple(changes)


def _told(a: Sequence[Trial], b: Sequence[Trial]) -> tuple[str, ...]:
    told: dict[str, None] = {}
    for one in a:
        for two in b:
            for name in differences(one.conditions, two.conditions):
                before, after = getattr(one.conditions, name), getattr(two.conditions, name)
                told[f"{name.replace('_', ' ')} {before} -> {after}"] = None
    return tuple(told)
