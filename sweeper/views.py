"""What `status`, `show` and `judge` print, made from a run's record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.core import codec
from sweeper.core.errors import UsageError
from sweeper.core.observations import CanaryChecked, MachineBefore, MachineWatched, OutputSample, TextScored
from sweeper.core.points import DecodePoint
from sweeper.core.racing import drift
from sweeper.core.roofline import Reached
from sweeper.core.textscores import TextComparison, TextScores, compare_text
from sweeper.core.values import Cell
from sweeper.core.verdicts import Cause, Finding, Outcome, Phase, Verdict
from sweeper.insights import reacher, within_bound
from sweeper.insights_machine import machine_lines, machine_notes
from sweeper.report.columns import number
from sweeper.report.model import Model, build, effective, requested
from sweeper.savings import saving
from sweeper.store.eventlog import holder
from sweeper.store.record import RunRecord, TrialRecord

_WORDS = ("reasons", "weight_only")
"""What a check says beside its figures."""
JUDGED_ALIKE = 0.005
"""Relative: joules of a window judged again from its stored trace, whose samples are rounded."""


def model(record: RunRecord, enrich: Any = None) -> Model:
    """The report's table model."""
    verdicts = standing(record)
    saved = saving(record)
    notes = [*([saved.to_text()] if saved else ()), *record.notes]
    notes += machine_notes(record)
    if record.torn:
        notes.append(f"{record.torn} torn line(s) in events.jsonl were left out.")
    moved = drift(_reference_rates(record, verdicts))
    if moved:
        notes.append(moved.text)
    more = {"enrich": enrich, "reached": reacher(record)} if enrich else {}
    return build(
        run_id=record.run.run_id,
        title=str(record.facts.get("title") or record.facts.get("matrix") or ""),
        host=record.facts.get("host") or {},
        cells=record.cells,
        verdicts=verdicts,
        excluded=record.excluded,
        notes=notes,
        saving=saved,
        **more,
    )


def standing(record: RunRecord) -> dict[str, list[Verdict]]:
    """Verdicts by cell id, one per trial in order, held against the reference cell and the speed of light."""
    verdicts: dict[str, list[Verdict]] = {}
    for trial in record.trials.values():
        if trial.verdict:
            verdicts.setdefault(trial.cell_id, []).append(trial.verdict)
    return within_bound(record, against_reference(record, verdicts))


def against_reference(record: RunRecord, verdicts: Mapping[str, list[Verdict]]) -> dict[str, list[Verdict]]:
    """Verdicts, with every cell whose text is off the reference cell's taken out of the ranking, and by how much."""
    base = _text_of(record, record.reference or "")
    model = record.cells[record.reference].model if record.reference in record.cells else None
    if base is None:
        return dict(verdicts)
    judged = {}
    for cell_id, trials in verdicts.items():
        own = _text_of(record, cell_id)
        if own is None or cell_id == record.reference or record.cells[cell_id].model != model:
            judged[cell_id] = trials
            continue
        found = compare_text(base, own)
        judged[cell_id] = [_held(verdict, found) for verdict in trials]
    return judged


def _held(verdict: Verdict, found: TextComparison) -> Verdict:
    if verdict.outcome is not Outcome.PASS or found.relative_score is None:
        return verdict
    text = f"fixed text against the reference cell: relative score {found.relative_score:.2f} (reference 100)"
    if found.agreement is not None:
        text += f", best token agrees at {found.agreement:.1%}"
    if found.verdict in ("degraded", "garbage"):
        cause = Cause(id="garbage-output", means=f"The numbers are {found.verdict}: {found.why}.")
        return replace(verdict, outcome=Outcome.FAIL, phase=Phase.SANITY, cause=cause)
    return replace(verdict, findings=(*verdict.findings, Finding(id="text-score", text=text)))


def _text_of(record: RunRecord, cell_id: str) -> TextScores | None:
    for trial in reversed(record.of_cell(cell_id)):
        for item in trial.observed:
            if isinstance(item, TextScored):
                return item.scores
    return None


def _reference_rates(record: RunRecord, verdicts: Mapping[str, Sequence[Verdict]]) -> list[float]:
    """The reference cell's first figure per launch, in the order of the launches."""
    passed = [v for v in verdicts.get(record.reference or "", ()) if v.outcome is Outcome.PASS and v.points]
    firsts = [v.points[0] for v in passed]
    return [point.tok_s for point in firsts if point.against is None and point.tok_s is not None]


def status(record: RunRecord) -> dict[str, Any]:
    """Progress: every cell with the outcome of its last trial, and what runs now."""
    rows = []
    running = None
    for cell_id, cell in record.cells.items():
        trials = record.of_cell(cell_id)
        last = trials[-1] if trials else None
        outcome = last.verdict.outcome.value if last and last.verdict else ("running" if last else "waiting")
        cause = last.verdict.cause.id if last and last.verdict and last.verdict.cause else None
        if outcome == "running" and last:
            running = {"trial": last.trial, "label": cell.label(), "phase": last.phase, "since": last.started_utc}
        rows.append({"cell": cell_id, "label": cell.label(), "outcome": outcome, "cause": cause, "trials": len(trials)})
    return {
        "schema": 1,
        "run": record.run.run_id,
        "finished": record.finished,
        "held_by": holder(record.run.path),
        "running": running,
        "cells": rows,
        "resume": f"sweeper run {record.facts.get('matrix_path', 'MATRIX')} --resume {record.run.path}",
    }


def status_text(status: Mapping[str, Any]) -> str:
    """One line a cell."""
    rows: Sequence[Mapping[str, Any]] = status["cells"]
    tally: dict[str, int] = {}
    for row in rows:
        tally[row["outcome"]] = tally.get(row["outcome"], 0) + 1
    head = ", ".join(f"{count} {name}" for name, count in tally.items())
    held = status["held_by"]
    state = "finished" if status["finished"] else f"running, {held}" if held else "cut off"
    lines = [f"{status['run']}: {state}; {head}"]
    lines += [
        f"  {row['outcome']:<13}{row['cell']}  {row['label']}" + (f"   {row['cause']}" if row["cause"] else "")
        for row in rows
    ]
    now = status["running"]
    if now:
        lines.append(f"{'now' if held else 'cut off in'}: {now['label']} in {now['phase']}, since {now['since']}")
    if not status["finished"] and not held:
        lines.append(f"continue: {status['resume']}")
    return "\n".join(lines) + "\n"


def find_trial(record: RunRecord, name: str) -> TrialRecord:
    """By trial id, cell id (its last trial) or a unique start. Raises UsageError."""
    hits = [trial for trial in record.trials.values() if trial.trial == name or trial.cell_id == name]
    hits = hits or [trial for trial in record.trials.values() if trial.trial.startswith(name)]
    if not hits:
        known = ", ".join(list(record.trials)[:6]) or "none"
        raise UsageError(
            f"no trial '{name}' in {record.run.run_id}; it has {known}", hint="All of them: sweeper status"
        )
    if len({trial.cell_id for trial in hits}) > 1:
        raise UsageError(f"'{name}' fits trials of {len({t.cell_id for t in hits})} cells; give more characters")
    return hits[-1]


def show(record: RunRecord, name: str) -> dict[str, Any]:
    """Everything about one trial."""
    trial = find_trial(record, name)
    cell = record.cells[trial.cell_id]
    verdict = trial.verdict
    folder = record.run.path / "trials" / trial.trial
    return {
        "schema": 1,
        "trial": trial.trial,
        "cell": trial.cell_id,
        "label": cell.label(),
        "outcome": verdict.outcome.value if verdict else "running",
        "phase": verdict.phase.value if verdict else trial.phase,
        "elapsed_s": verdict.elapsed_s if verdict else None,
        "cause": codec.dump(verdict.cause) if verdict and verdict.cause else None,
        "also": [codec.dump(cause) for cause in verdict.also] if verdict else [],
        "findings": [finding.text for finding in verdict.findings] if verdict else [],
        "requested": requested(cell),
        "effective": effective(verdict),
        "facts": codec.dump(verdict.effective) if verdict and verdict.effective else None,
        "points": [codec.dump(point) for point in verdict.points] if verdict else [],
        "limits": _limits(record, cell, verdict.points if verdict else ()),
        "samples": [codec.dump(item) for item in trial.observed if isinstance(item, OutputSample)],
        "machine": [codec.dump(item) for item in trial.observed if isinstance(item, MachineBefore | MachineWatched)],
        "canary": _canary(record, trial),
        "launch": trial.launch,
        "files": sorted(str(path) for path in folder.glob("*")) if folder.exists() else [],
    }


def _canary(record: RunRecord, trial: TrialRecord) -> dict[str, Any] | None:
    """What the preflight said about this trial, and the launch that it read it off."""
    said = [item for item in trial.observed if isinstance(item, CanaryChecked) and item.where == "preflight"]
    if not said:
        return None
    log = said[-1].cause.log if said[-1].cause else None
    launch = next((item for item in record.canaries if item.log == log), None) or next(
        (item for item in record.canaries if item.checked == said[-1]), None
    )
    facts = {"by_hand": launch.by_hand, "log": launch.log, "label": launch.label} if launch else {}
    return {"verdict": said[-1].verdict, "figures": said[-1].figures, **facts}


def _limits(record: RunRecord, cell: Cell, points: Sequence[DecodePoint]) -> list[dict[str, Any] | None]:
    of = reacher(record)
    return [codec.dump(found) if (found := of(cell, point)) else None for point in points]


def show_text(shown: Mapping[str, Any], part: str | None) -> str:
    """The whole trial, or one part of it."""
    if part == "command":
        return _by_hand(shown) + "\n"
    if part == "samples":
        return _samples(shown)
    if part == "effective":
        return _effective(shown)
    took = f", {shown['elapsed_s']:.0f} s" if shown["elapsed_s"] else ""
    lines = [f"{shown['outcome']}  {shown['trial']}  {shown['label']}   in {shown['phase']}{took}"]
    cause = shown["cause"]
    if cause:
        lines.append(f"  cause     {cause['id']}: {cause['means']}")
        if cause["line"]:
            lines += [f"  line      {cause['line_no'] or '-'}: {cause['line'].strip()[:300]}"]
        lines += [f"  {name:<10}{cause[key]}" for name, key in (("try", "try_"), ("known", "source")) if cause[key]]
    lines += [f"  also seen {other['id']}" for other in shown["also"]]
    lines += [f"  finding   {text}" for text in shown["findings"]]
    lines += [_effective(shown).rstrip()]
    for point, limit in zip(shown["points"], shown["limits"], strict=True):
        rate = number(point["decode_tok_s"] if point["decode_tok_s"] is not None else point["serving_tok_s"])
        lines.append(
            f"  measured  {rate} tok/s at {point['concurrency']}, window {number(point['window_s'])} s, "
            f"TTFT p50 {number(point['ttft_ms']['p50'])} ms, ITL {number(point['itl_ms']['mean'])} ms"
        )
        lines += [f"            not ranked: {why}" for why in point["invalid"]]
        lines += [f"  limit     {codec.load(Reached, limit).text()}"] if limit else []
    lines += machine_lines(shown["machine"])
    lines.append(_samples(shown).rstrip())
    lines.append(_canary_line(shown["canary"]))
    lines.append(f"  by hand   {_by_hand(shown)}")
    lines += [f"  file      {name}" for name in shown["files"]]
    return "\n".join(line for line in lines if line) + "\n"


def _by_hand(shown: Mapping[str, Any]) -> str:
    """How to start what was started: the server, or the canary where the trial ended there."""
    return str((shown["launch"] or shown["canary"] or {}).get("by_hand") or "never launched")


def _canary_line(canary: Mapping[str, Any] | None) -> str:
    if canary is None:
        return ""
    figures = [(key.replace("_", " "), value) for key, value in canary["figures"].items() if key not in _WORDS]
    told = [
        f"{key} {value:.2g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in figures
        if value is not None and not isinstance(value, bool)
    ]
    return f"  canary    {canary['verdict']}" + (f": {', '.join(told)}" if told else "")


def _samples(shown: Mapping[str, Any]) -> str:
    lines = []
    for sample in shown["samples"]:
        mark = sample["problem"] or {True: "right", False: "wrong", None: "no known answer"}[sample["right"]]
        asked = " ".join(sample["prompt"].split())[-60:]
        lines.append(f"  sample    {asked!r} -> {' '.join(sample['text'].split())[:100]!r} ({mark})")
    return "\n".join(lines) + "\n" if lines else ""


def _effective(shown: Mapping[str, Any]) -> str:
    lines = []
    for key, ran in shown["effective"].items():
        asked = shown["requested"].get(key, "-")
        unproven = key == "MoE backend" and (shown["facts"] or {}).get("moe_backend_ran") is None
        word = "selected" if unproven else "ran"
        # An engine calls weights that are not quantised `none`.
        same = asked == ran or (key == "quantization" and ran == "none" and asked in ("bf16", "fp16", "-"))
        lines.append(f"  {key:<18}{ran if same else f'asked {asked}, {word} {ran}'}")
    return "\n".join(lines) + "\n" if lines else ""


def changes_text(changes: Sequence[Mapping[str, Any]]) -> str:
    """What judging again changed."""
    if not changes:
        return "no verdict changed\n"
    lines = [f"  {item['label']}: {item['before']} -> {item['after']}" for item in changes]
    head = "1 verdict changed" if len(changes) == 1 else f"{len(changes)} verdicts changed"
    return "\n".join([head, *lines]) + "\n"


def _judgement(verdict: Verdict) -> str:
    """Outcome and cause, and the energy of every point that has one: traces are judged again too."""
    energies = [(point.energy.joules, point.energy.state) for point in verdict.points if point.energy]
    said = [f"{joules:.0f} J {state or ''}".strip() for joules, state in energies if joules is not None]
    words = [verdict.outcome.value, verdict.phase.value, verdict.cause.id if verdict.cause else "-"]
    return " ".join(words) + (f" ({', '.join(said)})" if said else "")


def _same(before: Verdict, after: Verdict) -> bool:
    """Alike but for the rounding of a stored trace."""
    if (before.outcome, before.phase) != (after.outcome, after.phase):
        return False
    if (before.cause and before.cause.id) != (after.cause and after.cause.id) or len(before.points) != len(
        after.points
    ):
        return False
    pairs = [(one.energy, two.energy) for one, two in zip(before.points, after.points, strict=True)]
    return all(
        one == two
        or (
            one is not None
            and two is not None
            and one.state == two.state
            and math.isclose(one.joules or 0.0, two.joules or 0.0, rel_tol=JUDGED_ALIKE)
        )
        for one, two in pairs
    )


def difference(cell: Cell, before: Verdict, after: Verdict) -> dict[str, str] | None:
    """The change of one verdict, or None."""
    names = [_judgement(verdict) for verdict in (before, after)]
    if _same(before, after):
        return None
    return {"trial": after.trial, "label": cell.label(), "before": names[0], "after": names[1]}
