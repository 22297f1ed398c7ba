"""A run's record as tables: one model for text, Markdown, CSV, JSON and HTML. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from sweeper.core.canaries import Saving
from sweeper.core.judge import point_cause
from sweeper.core.points import DecodePoint
from sweeper.core.racing import confirmed
from sweeper.core.rank import rank
from sweeper.core.roofline import Reached
from sweeper.core.values import Cell
from sweeper.core.verdicts import Outcome, Phase, RankedRow, Verdict
from sweeper.core.windows_point import source_flag

DASH = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One ranked cell at one workload and concurrency."""

    row: RankedRow
    cell: Cell
    requested: Mapping[str, str]
    effective: Mapping[str, str]
    points: tuple[DecodePoint, ...]
    """One per launch that passed."""
    findings: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    launched: int = 0
    """Launches that gave this figure; more than `row.launches` where the one that chose the cell does not count."""
    reached: Reached | None = None
    """Share of the speed of light; None where model, GPU or rate is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Ranking of one workload at one concurrency, best first."""

    workload: str
    concurrency: int
    metric: str
    lines: tuple[Line, ...]
    isl: int | None = None
    osl: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unranked:
    """A cell without a place: its reason, and where the proof is."""

    cell_id: str
    label: str
    outcome: str
    phase: str
    cause: str
    means: str
    try_: str = ""
    evidence: str = ""
    """`trials/<trial>/server.log:<line>`, relative to the run folder."""
    line: str = ""
    elapsed_s: float | None = None
    point: DecodePoint | None = None
    """Of a cell that has places elsewhere: the one point that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything a report shows."""

    run_id: str
    title: str
    host: Mapping[str, Any]
    tables: tuple[Table, ...]
    unranked: tuple[Unranked, ...]
    same: Mapping[str, str] = field(default_factory=dict)
    """Fields that are equal in every cell."""
    varying: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pending: int = 0
    saving: Saving | None = None
    """Of the preflight; also a sentence of `notes`."""


def requested(cell: Cell) -> dict[str, str]:
    """What the cell asked for, field by field, in the order in which columns are shown."""
    spec = cell.speculative
    return {
        "engine": cell.engine,
        "version": cell.engine_version or DASH,
        "image": cell.image or DASH,
        "model": cell.model,
        "quantization": cell.quantization or DASH,
        "MoE backend": cell.moe_backend,
        "linear": cell.linear_backend or DASH,
        "attention": cell.attention_backend or DASH,
        "TP": str(cell.parallelism.tp),
        "PP": str(cell.parallelism.pp),
        "DP": str(cell.parallelism.dp),
        "EP": str(cell.parallelism.ep),
        "spec": spec.label() if spec else DASH,
        "env": " ".join(f"{key}={value}" for key, value in cell.env) or DASH,
        "args": " ".join(cell.extra_args) or DASH,
        "max len": str(cell.max_model_len or DASH),
    }


def effective(verdict: Verdict | None) -> dict[str, str]:
    """What the log proves to have run; only what it proves."""
    facts = verdict.effective if verdict else None
    if facts is None:
        return {}
    values = {
        "engine": facts.engine,
        "version": facts.engine_version,
        "MoE backend": facts.moe_backend,
        "draft MoE backend": facts.draft_moe_backend,
        "linear": facts.linear_backend,
        "attention": facts.attention_backend,
        "quantization": facts.quantization,
        "TP": facts.tp,
        "PP": facts.pp,
        "DP": facts.dp,
        "EP": facts.ep,
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def build(
    *,
    run_id: str,
    title: str,
    host: Mapping[str, Any],
    cells: Mapping[str, Cell],
    verdicts: Mapping[str, Sequence[Verdict]],
    excluded: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    saving: Saving | None = None,
    enrich: Callable[[Cell, DecodePoint], tuple[str, ...]] = lambda cell, point: (),
    reached: Callable[[Cell, DecodePoint], Reached | None] = lambda cell, point: None,
) -> Model:
    """`verdicts`: per cell id, one per trial in order. `enrich` adds findings that need more than the record."""
    asked = {cell_id: requested(cell) for cell_id, cell in cells.items()}
    same, varying = _split(asked)
    tables = tuple(_tables(cells, asked, verdicts, enrich, reached))
    placed = dict.fromkeys(line.row.cell_id for table in tables for line in table.lines)
    tried = {cell_id: verdicts.get(cell_id, ()) for cell_id in cells}
    unranked = [_unranked(cells[name], each[-1]) for name, each in tried.items() if each and name not in placed]
    for name in placed:
        unranked += _points_without_place(cells[name], tried[name])
    unranked += [_excluded(item) for item in excluded]
    return Model(
        run_id=run_id,
        title=title,
        host=host,
        tables=tables,
        unranked=tuple(unranked),
        same=same,
        varying=varying,
        findings=_findings(cells, verdicts, tables),
        notes=tuple(notes),
        pending=sum(not each for each in tried.values()),
        saving=saving,
    )


def _split(asked: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], tuple[str, ...]]:
    rows = list(asked.values())
    if not rows:
        return {}, ()
    same = {key: rows[0][key] for key in rows[0] if all(row[key] == rows[0][key] for row in rows)}
    return {k: v for k, v in same.items() if v != DASH}, tuple(key for key in rows[0] if key not in same)


def _tables(
    cells: Mapping[str, Cell],
    asked: Mapping[str, Mapping[str, str]],
    verdicts: Mapping[str, Sequence[Verdict]],
    enrich: Callable[[Cell, DecodePoint], tuple[str, ...]],
    reached: Callable[[Cell, DecodePoint], Reached | None],
) -> list[Table]:
    good = {cell_id: [v for v in verdicts.get(cell_id, ()) if v.outcome is Outcome.PASS] for cell_id in cells}
    groups: dict[tuple[str, int, int | None, int | None, str], dict[str, list[tuple[int, DecodePoint]]]] = {}
    for cell_id, passed in good.items():
        for launch, verdict in enumerate(passed):
            for point in verdict.sound:
                # Exact counts and others are unlike things: they get a table each.
                counted = source_flag(point.tokens_source) or ""
                key = (point.preset, point.concurrency, point.isl, point.osl, counted)
                groups.setdefault(key, {}).setdefault(cell_id, []).append((launch, point))
    made = []
    for (preset, concurrency, isl, osl, counted), found in sorted(groups.items(), key=lambda item: _order(item[0])):
        points = {cell_id: [point for _, point in each] for cell_id, each in found.items()}
        metric = "decode" if any(p.decode_tok_s is not None for each in points.values() for p in each) else "serving"
        samples = {cell_id: _per_launch(each, metric) for cell_id, each in found.items()}
        labels = {cell_id: cells[cell_id].label() for cell_id in points}
        rows = rank(confirmed(samples), labels=labels, workload=preset, concurrency=concurrency)
        lines = tuple(
            Line(
                row=row,
                cell=cells[row.cell_id],
                requested=asked[row.cell_id],
                effective=effective(good[row.cell_id][-1]),
                points=tuple(points[row.cell_id]),
                findings=(*enrich(cells[row.cell_id], points[row.cell_id][-1]), *_counted(counted)),
                verdicts=tuple(good[row.cell_id]),
                launched=len(samples[row.cell_id]),
                reached=reached(cells[row.cell_id], replace(points[row.cell_id][-1], decode_tok_s=row.decode_tok_s))
                if metric == "decode"
                else None,
            )
            for row in rows
        )
        made.append(Table(workload=preset, concurrency=concurrency, metric=metric, lines=lines, isl=isl, osl=osl))
    return made


def _per_launch(points: Sequence[tuple[int, DecodePoint]], metric: str) -> list[float]:
    """One mean per launch: two workloads that ask the same of one server are no two launches."""
    rates: dict[int, list[float]] = {}
    for launch, point in points:
        value = rate(point, metric)
        if value is not None:
            rates.setdefault(launch, []).append(value)
    return [fmean(each) for each in rates.values()]


def _order(key: tuple[str, int, int | None, int | None, str]) -> tuple[str, int, int, int, str]:
    return key[0], key[2] or 0, key[3] or 0, key[1], key[4]


def _counted(how: str) -> tuple[str, ...]:
    return (f"{how}: ranked only among cells counted the same way",) if how else ()


def rate(point: DecodePoint, metric: str) -> float | None:
    """The figure that is ranked: sustained decode, or serving where a preset has no decode window."""
    return point.decode_tok_s if metric == "decode" else point.serving_tok_s


def _unranked(cell: Cell, verdict: Verdict) -> Unranked:
    cause = verdict.cause
    return Unranked(
        cell_id=verdict.cell_id,
        label=cell.label(),
        outcome=verdict.outcome.value,
        phase=verdict.phase.value,
        cause=cause.id if cause else DASH,
        means=cause.means if cause else "",
        try_=cause.try_ if cause else "",
        evidence=_evidence(cell, verdict),
        line=(cause.line or "").strip() if cause else "",
        elapsed_s=verdict.elapsed_s,
    )


def _points_without_place(cell: Cell, verdicts: Sequence[Verdict]) -> list[Unranked]:
    """Points of a ranked cell that hold in none of its launches, one row a cause: the last launch says why."""
    passed = [verdict for verdict in verdicts if verdict.outcome is Outcome.PASS]
    held = {n for verdict in passed for n, point in enumerate(verdict.points) if point.against is None}
    rows = []
    for number, point in enumerate(passed[-1].points):
        if point.against is None or number in held:
            continue
        row = _unranked(cell, replace(passed[-1], outcome=_outcome_of(point), cause=point_cause(point)))
        where = row.evidence if point.sent else ""
        rows.append(replace(row, label=f"{cell.label()}, {_asked(point)}", elapsed_s=None, evidence=where, point=point))
    return rows


def _outcome_of(point: DecodePoint) -> Outcome:
    return Outcome.INCONCLUSIVE if point.sent else Outcome.SKIP


def _asked(point: DecodePoint) -> str:
    return f"{point.preset} at {point.concurrency}, ISL {point.isl or DASH}, OSL {point.osl or DASH}"


def _evidence(cell: Cell, verdict: Verdict) -> str:
    """Log and line that prove the cause; without a line, the log of a server that we started."""
    cause = verdict.cause
    if cause and cause.log:
        return f"{cause.log}:{cause.line_no}" if cause.line_no else cause.log
    started = verdict.phase not in (Phase.PLAN, Phase.LAUNCH, Phase.CANARY) and not cell.url
    return f"trials/{verdict.trial}/server.log" if started else ""


def _excluded(item: Mapping[str, Any]) -> Unranked:
    return Unranked(
        cell_id=str(item["id"]),
        label=str(item["label"]),
        outcome=Outcome.SKIP.value,
        phase="plan",
        cause="excluded",
        means="; ".join(item["reasons"]),
    )


def _findings(
    cells: Mapping[str, Cell], verdicts: Mapping[str, Sequence[Verdict]], tables: Sequence[Table]
) -> tuple[str, ...]:
    """Each text once, with the cells that it is about."""
    found: dict[str, dict[str, None]] = {}
    for cell_id, trials in verdicts.items():
        for verdict in trials:
            for finding in verdict.findings:
                label = cells[cell_id].label() if cell_id in cells else cell_id
                found.setdefault(finding.text, {})[label] = None
    for table in tables:
        for line in table.lines:
            for text in line.findings:
                found.setdefault(text, {})[line.row.label] = None
    return tuple(f"{_whom(list(labels), len(cells))}: {text}" for text, labels in found.items())


def _whom(labels: Sequence[str], cells: int) -> str:
    if 2 < len(labels) == cells:
        return f"all {cells} cells"
    return ", ".join(labels) if len(labels) <= 2 else f"{labels[0]} and {len(labels) - 1} more cells"


def host_line(host: Mapping[str, Any]) -> str:
    """The machine in a few words, from the facts in `run.json`; empty where the run has none."""
    gpus: dict[str, int] = {}
    for gpu in host.get("gpus") or ():
        name = f"{gpu.get('name') or 'GPU'}" + (f" (sm {gpu['sm']})" if gpu.get("sm") else "")
        gpus[name] = gpus.get(name, 0) + 1
    parts = [f"{count} x {name}" for name, count in gpus.items()]
    if host.get("driver"):
        parts.append(f"driver {host['driver']}")
    if host.get("cpu"):
        parts.append(f"{host['cpu']}, {host.get('cores') or DASH} cores" + ("" if gpus else ", no GPU"))
    if host.get("wsl"):
        parts.append(str(host["wsl"]))
    return " · ".join(parts)
