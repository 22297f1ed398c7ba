"""Sentences about a measured cell that need more than its own record: limits, paired cell, reference speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeper.boards import board, board_of
from sweeper.config_models import model_geometry
from sweeper.core.energyruns import underutilised
from sweeper.core.mtp import mtp_effect, paired_cell
from sweeper.core.points import DecodePoint
from sweeper.core.roofline import Board, SpeedOfLight, context_of, held_against, speed_of_light
from sweeper.core.values import Cell, Hardware
from sweeper.core.verdicts import Outcome
from sweeper.store.record import RunRecord


def enricher(record: RunRecord) -> Callable[[Cell, DecodePoint], tuple[str, ...]]:
    """What a report says beside a point: share of the speed of light, idle GPUs, what speculation did."""
    limits = board_of_record(record)

    def enrich(cell: Cell, point: DecodePoint) -> tuple[str, ...]:
        limit = limit_of(cell, point, limits)
        return (*_limits(point, limit), *_idle(record, cell, point), *_speculation(record, cell, point, limit))

    return enrich


def board_of_record(record: RunRecord) -> Board | None:
    """Constants of the machine that the matrix declares, else of the host's first GPU."""
    declared = record.facts.get("hardware") or {}
    gpus = (record.facts.get("host") or {}).get("gpus") or []
    return board_of(Hardware(**declared)) or (board(str(gpus[0].get("name"))) if gpus else None)


def limit_of(cell: Cell, point: DecodePoint, limits: Board | None) -> SpeedOfLight | None:
    """Speed of light of a cell as it was measured; None where the model, the GPU or the rate is unknown."""
    shape = model_geometry(cell.model)
    if limits is None or shape is None or point.decode_tok_s is None:
        return None
    length = point.acceptance.length if point.acceptance else None
    return speed_of_light(
        cell, shape, limits, context=context_of(point), concurrency=point.concurrency, acceptance=length
    )


def _limits(point: DecodePoint, limit: SpeedOfLight | None) -> list[str]:
    if limit is None:
        return []
    _, findings = held_against(point.decode_tok_s, limit)
    line = f"speed of light at concurrency {point.concurrency}: {limit.line(point.decode_tok_s)}"
    return [line, *(finding.text for finding in findings)]


def _idle(record: RunRecord, cell: Cell, point: DecodePoint) -> list[str]:
    """Against the reference cell, or the fastest of the same workload where the matrix names none."""
    share = point.energy.power_share if point.energy else None
    rates = {cell_id: p.decode_tok_s for cell_id, p in _same_workload(record, point) if p.decode_tok_s is not None}
    speed = rates.get(record.reference or "", max(rates.values(), default=None))
    found = underutilised(power_share=share, tok_s=point.decode_tok_s, reference_tok_s=speed)
    return [found.text] if found else []


def _speculation(record: RunRecord, cell: Cell, point: DecodePoint, limit: SpeedOfLight | None) -> list[str]:
    if cell.speculative is None:
        return []
    partner = paired_cell(cell, record.cells.items())
    plain = next((p for cell_id, p in _same_workload(record, point) if cell_id == partner), None)
    effect = mtp_effect(
        point, plain, drafts=cell.speculative.tokens, model_break_even=limit.break_even if limit else None
    )
    return [f"{cell.speculative.label()} at concurrency {point.concurrency}: {effect.sentence}"]


def _same_workload(record: RunRecord, point: DecodePoint) -> Sequence[tuple[str, DecodePoint]]:
    """(cell id, its point) of every passed launch that answers the same question; prompts differ by a few tokens."""
    return [
        (trial.cell_id, other)
        for trial in reversed(list(record.trials.values()))
        if trial.verdict is not None and trial.verdict.outcome is Outcome.PASS
        for other in trial.verdict.points
        if (other.preset, other.concurrency, other.osl) == (point.preset, point.concurrency, point.osl)
        and abs((other.isl or 0) - (point.isl or 0)) <= 16
    ]
