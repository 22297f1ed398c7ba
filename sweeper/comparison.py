"""Two runs side by side: from their records to changes, as data and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from tabulate import tabulate

from sweeper.core.comparable import Change, Conditions, Key, Trial, compare_runs
from sweeper.core.identity import cell_id
from sweeper.core.points import DecodePoint
from sweeper.core.racing import confirmed
from sweeper.core.stats import LaunchStats
from sweeper.core.values import Cell
from sweeper.core.verdicts import Interval, Outcome, Verdict
from sweeper.core.windows_point import source_flag
from sweeper.store.record import RunRecord, TrialRecord
from sweeper.views import standing

NARROWEST_LABEL = 10


def compare(a: RunRecord, b: RunRecord) -> tuple[Change, ...]:
    """Cells that passed in both runs under the same workload; see `matched` for which cells those are."""
    back = {theirs: ours for ours, theirs in matched(a.cells, b.cells).items()}
    renamed = {(back[cell], workload): trials for (cell, workload), trials in figures(b).items() if cell in back}
    return compare_runs(figures(a), renamed, labels={name: cell.label() for name, cell in a.cells.items()})


def matched(a: Mapping[str, Cell], b: Mapping[str, Cell]) -> dict[str, str]:
    """Cell ids of A to those of B: the same id, else the only cell that differs in engine version or image alone."""
    pairs = {name: name for name in a if name in b}
    left, right = _loose(a, set(pairs)), _loose(b, set(pairs.values()))
    for key, ids in left.items():
        if len(ids) == 1 and len(right.get(key, ())) == 1:
            pairs[ids[0]] = right[key][0]
    return pairs


def _loose(cells: Mapping[str, Cell], taken: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, cell in cells.items():
        if name not in taken:
            bare = replace(cell, engine_version=None, image=None, python=None, url=None, name=None)
            found.setdefault(cell_id(bare), []).append(name)
    return found


def figures(record: RunRecord) -> dict[Key, list[Trial]]:
    """Per cell and workload one figure per launch that a report would rank, without the screening ones of a race."""
    found: dict[Key, list[Trial]] = {}
    passed = {v.trial for each in standing(record).values() for v in each if v.outcome is Outcome.PASS}
    for trial in record.trials.values():
        if trial.verdict is None or trial.trial not in passed:
            continue
        for workload, rates in _rates(trial.verdict).items():
            one = _trial(record, trial, trial.verdict, workload, fmean(rates))
            found.setdefault((trial.cell_id, workload), []).append(one)
    return _confirmed(found)


def _rates(verdict: Verdict) -> dict[str, list[float]]:
    """By workload; several where two workloads ask the same of one server, which does not make them two launches."""
    rates: dict[str, list[float]] = {}
    for point in verdict.sound:
        if point.tok_s is not None:
            rates.setdefault(workload_of(point), []).append(point.tok_s)
    return rates


def workload_of(point: DecodePoint) -> str:
    """`sustained-decode c=8 128/512`: figures with the same text answer the same question."""
    rate = "" if point.decode_tok_s is not None else " serving"
    counted = f", counted by {point.tokens_source}" if source_flag(point.tokens_source) else ""
    isl = "-" if point.isl is None else round(point.isl, -1) if point.isl >= 32 else point.isl
    return f"{point.preset}{rate} c={point.concurrency} {isl}/{point.osl if point.osl is not None else '-'}{counted}"


def _trial(record: RunRecord, trial: TrialRecord, verdict: Verdict, workload: str, value: float) -> Trial:
    host: Mapping[str, Any] = record.facts.get("host") or {}
    gpus = sorted({str(gpu.get("name")) for gpu in host.get("gpus") or () if gpu.get("name")})
    effective, cell = verdict.effective, record.cells[trial.cell_id]
    return Trial(
        trial=trial.trial,
        value=value,
        conditions=Conditions(
            workload=workload,
            image_digest=(trial.launch or {}).get("image_digest") or cell.image,
            engine_version=(effective.engine_version if effective else None) or cell.engine_version,
            gpu=", ".join(gpus) or None,
            driver=host.get("driver"),
        ),
    )


def _confirmed(found: Mapping[Key, Sequence[Trial]]) -> dict[Key, list[Trial]]:
    """Screening launches are dropped per workload, as the ranking drops them."""
    out: dict[Key, list[Trial]] = {}
    for workload in dict.fromkeys(key[1] for key in found):
        cells = {key[0]: found[key] for key in found if key[1] == workload}
        kept = confirmed({cell: [t.value for t in trials] for cell, trials in cells.items()})
        out |= {(cell, workload): list(trials)[len(trials) - len(kept[cell]) :] for cell, trials in cells.items()}
    return {key: out[key] for key in found}


def as_json(a: RunRecord, b: RunRecord, changes: Sequence[Change]) -> dict[str, Any]:
    """`{"schema": 1, "a", "b", "cells": [...], "only_a": [...], "only_b": [...]}`; rates in tokens per second."""
    only_a, only_b = _only(a, b)
    return {
        "schema": 1,
        "a": a.run.run_id,
        "b": b.run.run_id,
        "cells": [_change_json(change) for change in changes],
        "only_a": only_a,
        "only_b": only_b,
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "cell": change.cell_id,
        "label": change.label,
        "workload": change.workload,
        "a": _stats_json(change.a),
        "b": _stats_json(change.b),
        "ratio": change.ratio,
        "interval": _interval_json(change.interval),
        "p": change.p,
        "verdict": change.verdict,
        "conditions": list(change.conditions),
    }


def _stats_json(stats: LaunchStats) -> dict[str, Any]:
    return {"tok_s": stats.mean, "launches": stats.n, "interval": _interval_json(stats.interval)}


def _interval_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def as_text(a: RunRecord, b: RunRecord, changes: Sequence[Change], wide: int) -> str:
    """A table per workload in `wide` columns, what differed between the runs, the cells that only one of them has."""
    lines = [f"A: {a.run.run_id}", f"B: {b.run.run_id}", ""]
    if changes:
        for workload in dict.fromkeys(change.workload for change in changes):
            lines += [workload, _table([change for change in changes if change.workload == workload], wide), ""]
    else:
        lines += ["No cell passed in both runs under the same workload.", ""]
    told = dict.fromkeys(text for change in changes for text in change.conditions)
    lines += [f"differs: {text}" for text in told]
    if any(change.verdict.endswith("?") for change in changes):
        lines.append("?: one launch on a side gives no spread; sweeper run MATRIX --launches 3 measures one.")
    for name, labels in zip("AB", _only(a, b), strict=True):
        lines += [f"only in {name}: {label}" for label in labels]
    rows = [row for line in lines for row in (_wrapped(line, wide) if "\n" not in line else [line])]
    return "\n".join(rows).rstrip() + "\n"


def _wrapped(line: str, wide: int) -> list[str]:
    return textwrap.wrap(line, wide, break_on_hyphens=False, break_long_words=False) or [""]


def _table(changes: Sequence[Change], wide: int) -> str:
    """The changes of one workload; long labels take a second line where the terminal is narrow."""
    head = ["cell", "A tok/s", "B tok/s", "B/A", "95 % interval", "verdict"]
    rows = [_row(change) for change in changes]
    align = ("left", "right", "right", "right", "left", "left")
    for label in range(max(NARROWEST_LABEL, *(len(row[0]) for row in rows)), NARROWEST_LABEL - 1, -1):
        widths = [label, *[None] * 5]
        text = tabulate(rows, headers=head, disable_numparse=True, colalign=align, maxcolwidths=widths)
        if max(map(len, text.splitlines())) <= wide:
            break
    return text


def _row(change: Change) -> list[str]:
    interval = f"{change.interval.low:.3f} to {change.interval.high:.3f}" if change.interval else "-"
    return [
        change.label,
        f"{change.a.mean:.1f} ({change.a.n})",
        f"{change.b.mean:.1f} ({change.b.n})",
        f"{change.ratio:.3f}",
        interval,
        change.verdict,
    ]


def _only(a: RunRecord, b: RunRecord) -> tuple[list[str], list[str]]:
    """Labels of cells that were measured in one run and not in the other."""
    pairs, in_a, in_b = matched(a.cells, b.cells), _measured(a), _measured(b)
    both = {ours for ours, theirs in pairs.items() if ours in in_a and theirs in in_b}
    return (
        [cell.label() for name, cell in a.cells.items() if name in in_a - both],
        [cell.label() for name, cell in b.cells.items() if name in in_b - {pairs[ours] for ours in both}],
    )


def _measured(record: RunRecord) -> set[str]:
    return {cell for cell, _ in figures(record)}
