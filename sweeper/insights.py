"""Sentences about a measured cell that need more than its own record: limits, paired cell, reference speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean, median

from sweeper.boards import board, board_of
from sweeper.checkpoint import model_geometry
from sweeper.core.arguments import runs_on_cpu
from sweeper.core.energyruns import STABLE_CV, energy_over_runs, underutilised
from sweeper.core.mtp import mtp_effect, paired_cell
from sweeper.core.points import Acceptance, DecodePoint
from sweeper.core.presets import RunFigure, runs_of
from sweeper.core.roofline import Board, Reached, SpeedOfLight, context_of, held_against, reached, speed_of_light
from sweeper.core.stats import outliers, steadiness
from sweeper.core.values import Cell, Hardware
from sweeper.core.verdicts import Cause, Finding, Outcome, Phase, Verdict
from sweeper.store.record import RunRecord
from sweeper.store.rundir import read_requests

Runs = Callable[[str], Sequence[RunFigure]]
"""The stored repetitions of a trial."""
UNEQUAL = 2 / 3
"""Slowest over fastest stream; drafts alone spread streams by a fifth."""


def enricher(record: RunRecord) -> Callable[[Cell, DecodePoint], tuple[str, ...]]:
    """What a report says beside a point: share of the speed of light, idle GPUs, speculation, steadiness."""
    limits = board_of_record(record)
    stored = cache(lambda trial: _stored_runs(record, trial))

    def enrich(cell: Cell, point: DecodePoint) -> tuple[str, ...]:
        limit = limit_of(cell, point, limits)
        return (
            *_limits(point, limit),
            *_idle(record, cell, point, limits),
            *_speculation(record, cell, point, limits),
            *_failed_launches(record, cell, limits),
            *_missing(record, cell, point),
            *_steady(point),
            *_unequal(point),
            *_gpus(point),
            *_outliers(record, cell, point, limits),
            *_energy_runs(record, cell, point, stored),
            *_energy_phases(record, cell, point, stored),
        )

    return enrich


def reacher(record: RunRecord) -> Callable[[Cell, DecodePoint], Reached | None]:
    """Share of the speed of light of a cell as it was measured."""
    limits = board_of_record(record)

    def of(cell: Cell, point: DecodePoint) -> Reached | None:
        limit = limit_of(cell, point, limits)
        return reached(point.decode_tok_s, limit) if limit and point.decode_tok_s is not None else None

    return of


def board_of_record(record: RunRecord) -> Board | None:
    """Constants of the host's first GPU, with what the matrix declares of the same board; else of the declared one."""
    declared = board_of(Hardware(**(record.facts.get("hardware") or {})))
    gpus = (record.facts.get("host") or {}).get("gpus") or []
    here = board(str(gpus[0].get("name"))) if gpus else None
    return here if here and (declared is None or declared.name != here.name) else declared


def within_bound(record: RunRecord, verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, list[Verdict]]:
    """Verdicts, with every launch that was faster than its dense weights can be read taken out of the ranking.

    Each is a finding too: where the cell's other launches stand, nothing else would tell of it.
    """
    limits = board_of_record(record)
    return {
        cell_id: [_impossible(verdict, record.cells[cell_id], limits) for verdict in trials]
        for cell_id, trials in verdicts.items()
    }


def _impossible(verdict: Verdict, cell: Cell, limits: Board | None) -> Verdict:
    if verdict.outcome is not Outcome.PASS:
        return verdict
    for point in verdict.sound:
        limit = limit_of(cell, point, limits)
        found = held_against(point.decode_tok_s, limit)[1] if limit else ()
        if any(finding.id == "above-speed-of-light" for finding in found):
            means = f"Concurrency {point.concurrency}: {found[0].text}."
            cause = Cause(id="above-speed-of-light", means=means, try_="sweeper show TRIAL; docs/limits.md")
            told = Finding(id=cause.id, text=f"launch {verdict.trial} is not ranked: {means}")
            judged = replace(verdict, findings=(*verdict.findings, told))
            return replace(judged, outcome=Outcome.INCONCLUSIVE, phase=Phase.MEASURE, cause=cause)
    return verdict


def limit_of(cell: Cell, point: DecodePoint, limits: Board | None) -> SpeedOfLight | None:
    """Speed of light of a cell as it was measured; None where the model, the GPU or the rate is unknown."""
    shape = model_geometry(cell.model)
    if limits is None or shape is None or point.decode_tok_s is None or runs_on_cpu(cell):
        return None
    length = point.acceptance.length if point.acceptance else None
    return speed_of_light(
        cell, shape, limits, context=context_of(point), concurrency=point.concurrency, acceptance=length
    )


def _limits(point: DecodePoint, limit: SpeedOfLight | None) -> list[str]:
    if limit is None:
        return []
    return [
        f"at concurrency {point.concurrency}: {finding.text}" for finding in held_against(point.decode_tok_s, limit)[1]
    ]


def _idle(record: RunRecord, cell: Cell, point: DecodePoint, limits: Board | None) -> list[str]:
    """Against the reference cell, or the fastest of the same workload where the matrix names none."""
    share = point.energy.power_share if point.energy else None
    rates = {
        cell_id: p.decode_tok_s for cell_id, p in _same_workload(record, point, limits) if p.decode_tok_s is not None
    }
    speed = rates.get(record.reference or "", max(rates.values(), default=None))
    found = underutilised(power_share=share, tok_s=point.decode_tok_s, reference_tok_s=speed)
    return [found.text] if found else []


def _speculation(record: RunRecord, cell: Cell, point: DecodePoint, limits: Board | None) -> list[str]:
    if cell.speculative is None:
        return []
    partner, limit = paired_cell(cell, record.cells.items()), limit_of(cell, point, limits)
    same = _same_workload(record, point, limits)
    plain = _over_launches([p for cell_id, p in same if cell_id == partner])
    own = _over_launches([p for cell_id, p in same if record.cells[cell_id] == cell]) or point
    effect = mtp_effect(
        own, plain, drafts=cell.speculative.tokens, model_break_even=limit.break_even if limit else None
    )
    return [f"{cell.speculative.label()} at concurrency {point.concurrency}: {effect.sentence}"]


def _over_launches(points: Sequence[DecodePoint]) -> DecodePoint | None:
    """The mean of launches, in the two figures that speculation is judged by: one start is no result."""
    rates = [point.decode_tok_s for point in points if point.decode_tok_s is not None]
    if not rates:
        return None
    accepted = [p.acceptance for p in points if p.acceptance and p.acceptance.length and p.acceptance.rate is not None]
    length = fmean([one.length for one in accepted if one.length]) if accepted else None
    rate = fmean([one.rate for one in accepted if one.rate is not None]) if accepted else None
    steps = [one.per_step for one in accepted if one.per_step is not None]
    per_step = fmean(steps) if steps and len(steps) == len(accepted) else None
    return replace(
        points[0],
        decode_tok_s=fmean(rates),
        acceptance=Acceptance(rate=rate, length=length, per_step=per_step) if accepted else None,
    )


def _launches(record: RunRecord, cell: Cell) -> list[Verdict]:
    return [t.verdict for t in record.trials.values() if t.verdict and record.cells[t.cell_id] == cell]


def _failed_launches(record: RunRecord, cell: Cell, limits: Board | None) -> list[str]:
    """A ranked cell some of whose launches did not pass."""
    verdicts = [_impossible(verdict, cell, limits) for verdict in _launches(record, cell)]
    bad = [v for v in verdicts if v.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)]
    causes = ", ".join(dict.fromkeys(f"{v.cause.id if v.cause else v.phase} ({v.trial})" for v in bad))
    return [f"{len(bad)} of {len(verdicts)} launches did not pass: {causes}"] if bad else []


def _missing(record: RunRecord, cell: Cell, point: DecodePoint) -> list[str]:
    """Launches that passed and whose window for this point does not hold: they are not in its mean."""
    if point.against:
        return []
    passed = [verdict for verdict in _launches(record, cell) if verdict.outcome is Outcome.PASS]
    numbers = [verdict.points.index(point) for verdict in passed if point in verdict.points]
    spoiled = {v.trial: v.points[n] for v in passed for n in numbers[:1] if v.points[n : n + 1] and v.points[n].against}
    return [
        f"at concurrency {point.concurrency} launch {trial} does not count: {other.against}"
        for trial, other in spoiled.items()
    ]


def _steady(point: DecodePoint) -> list[str]:
    found = steadiness(point.series_tok_s)
    if found is None or found.steady:
        return []
    parts = ", ".join(f"{part:.0f}" for part in found.parts)
    return [
        f"unsteady at concurrency {point.concurrency}: {parts} tok/s in five equal parts of the window, "
        f"CV {found.cv:.0%}"
    ]


def _gpus(point: DecodePoint) -> list[str]:
    """A power cap is normal and still a condition of the figure; an energy that cannot be right says why."""
    energy = point.energy
    if energy is not None and energy.state == "power cap":
        return [f"the GPUs ran at their power cap at concurrency {point.concurrency}"]
    if energy is not None and energy.state == "invalid" and energy.joules is None:
        return [f"energy at concurrency {point.concurrency} is not known: {energy.why}"]
    return []


def _unequal(point: DecodePoint) -> list[str]:
    slowest, fastest = point.stream_range_tok_s or (0.0, 0.0)
    if slowest >= UNEQUAL * fastest:
        return []
    return [f"streams are served unequally at concurrency {point.concurrency}: {slowest:.0f} to {fastest:.0f} tok/s"]


def _outliers(record: RunRecord, cell: Cell, point: DecodePoint, limits: Board | None) -> list[str]:
    """Launches far from the others; they stay in the mean."""
    mine = [p for cell_id, p in _same_workload(record, point, limits) if record.cells[cell_id] == cell]
    rates = [rate for p in reversed(mine) if (rate := p.decode_tok_s) is not None]
    return [
        f"launch {n + 1} of {len(rates)} is an outlier at concurrency {point.concurrency}: {rates[n]:.0f} tok/s, "
        f"median {median(rates):.0f}; it is kept in the mean"
        for n in outliers(rates)
    ]


def _energy_runs(record: RunRecord, cell: Cell, point: DecodePoint, stored: Runs) -> list[str]:
    """Spread over the repetitions of the end-to-end protocol, of every launch."""
    if point.preset != "energy-e2e" or point.energy is None or point.energy.joules is None:
        return []
    runs = _repetitions(record, cell, point, stored)
    found = energy_over_runs([1000 * r.joules / r.tokens for r in runs if r.joules is not None and r.tokens])
    if found is None or found.sd is None or found.cv is None:
        return []
    gate = "stable" if found.stable else "not stable"
    return [
        f"energy at OSL {point.osl}: {found.mean:.1f} ± {found.sd:.1f} J per 1,000 tokens over {found.runs} runs, "
        f"CV {found.cv:.1%}: {gate} (gate {STABLE_CV:.0%})"
    ]


def _energy_phases(record: RunRecord, cell: Cell, point: DecodePoint, stored: Runs) -> list[str]:
    """Both phases apart, of the last launch that has them."""
    if point.preset != "energy-phases":
        return []
    phases = {run.phase: run for run in _repetitions(record, cell, point, stored) if run.joules is not None}
    prefill, decode = phases.get("prefill"), phases.get("decode")
    if prefill is None or decode is None or prefill.joules is None or decode.joules is None:
        return []
    return [
        f"energy at batch {point.concurrency}: prefill {prefill.joules:.3g} J a call at {_watts(prefill)}; "
        f"decode {decode.joules * 32 / decode.osl:.3g} J per 32 tokens a stream at {_watts(decode)}"
    ]


def _watts(run: RunFigure) -> str:
    share = f" ({run.power_share:.0%} of the limit)" if run.power_share is not None else ""
    return f"{run.mean_w:.0f} W{share}" if run.mean_w is not None else "unknown power"


def _repetitions(record: RunRecord, cell: Cell, point: DecodePoint, stored: Runs) -> list[RunFigure]:
    """What the energy presets stored, of every launch of the cell, in order."""
    return [
        run
        for trial in record.trials.values()
        if record.cells[trial.cell_id] == cell
        for run in stored(trial.trial)
        if (run.batch, run.osl) == (point.concurrency, point.osl)
    ]


def _stored_runs(record: RunRecord, trial: str) -> list[RunFigure]:
    return runs_of(read_requests(record.run.path / "trials" / trial / "requests.jsonl.gz"))


def _same_workload(record: RunRecord, point: DecodePoint, limits: Board | None) -> Sequence[tuple[str, DecodePoint]]:
    """(cell id, its point) of every launch that counts and answers the same question; prompts differ by few tokens."""
    return [
        (trial.cell_id, other)
        for trial in reversed(list(record.trials.values()))
        if trial.verdict is not None
        and _impossible(trial.verdict, record.cells[trial.cell_id], limits).outcome is Outcome.PASS
        for other in trial.verdict.sound
        if (other.preset, other.concurrency, other.osl) == (point.preset, point.concurrency, point.osl)
        and abs((other.isl or 0) - (point.isl or 0)) <= 16
    ]
