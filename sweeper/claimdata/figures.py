"""Our own figures with their conditions: from a run's record, or from what `sweeper bench --json` printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from statistics import fmean
from typing import Any

from sweeper import catalogue, comparison
from sweeper.claimdata.phases import PRESET, phase_readings
from sweeper.core.arguments import value_of
from sweeper.core.claims import Conditions, Figure, Reading
from sweeper.core.points import DecodePoint
from sweeper.core.roofline import context_of
from sweeper.core.stats import describe
from sweeper.core.values import Cell
from sweeper.core.verdicts import Outcome, Verdict
from sweeper.store.record import RunRecord

_GGUF = re.compile(r"([-_.](i?q\d\w*|bf16|f16|imatrix|\d+-of-\d+))*\.gguf$", re.IGNORECASE)
"""Format words at the end of a GGUF file's name: `DeepSeek-V4-Flash-q2-imatrix.gguf`."""
_SERVERS = {"ds4-server": "ds4", "llama-server": "llamacpp", "trtllm-serve": "tensorrt-llm"}


def canonical_model(model: str | None) -> str | None:
    """One name for a hub id, a folder and a variant: the catalogue's, else the last part of the name."""
    if model is None:
        return None
    name = PurePath(model.rstrip("/")).name
    if name.lower().endswith(".gguf"):
        name = _GGUF.sub("", name)
    return catalogue.find(model) or catalogue.find(name) or name.lower()


def figures(record: RunRecord) -> tuple[Figure, ...]:
    """One figure per cell and workload that passed, and one per cell that gave none."""
    found: list[Figure] = []
    measured = comparison.figures(record)
    for (cell_id, workload), trials in measured.items():
        chosen = {trial.trial for trial in trials}
        pairs = [
            (verdict, point)
            for verdict in _verdicts(record, cell_id)
            if verdict.trial in chosen
            for point in verdict.sound
            if comparison.workload_of(point) == workload
        ]
        found.append(_figure(record, cell_id, pairs))
    done = {cell_id for cell_id, _ in measured}
    asked = list(dict.fromkeys(_workload(figure.conditions) for figure in found)) or [()]
    found += [_failed(record, cell_id, one) for cell_id in record.cells if cell_id not in done for one in asked]
    found += [figure for cell_id in done for figure in _unproven(record, cell_id)]
    return tuple(found)


_WORKLOAD = ("preset", "concurrency", "isl", "osl", "context")


def _workload(conditions: Conditions) -> tuple[tuple[str, Any], ...]:
    """What a cell was asked; the cells without a figure were asked the same."""
    return tuple((name, getattr(conditions, name)) for name in _WORKLOAD)


def _verdicts(record: RunRecord, cell_id: str) -> list[Verdict]:
    return [trial.verdict for trial in record.of_cell(cell_id) if trial.verdict is not None]


def _figure(record: RunRecord, cell_id: str, pairs: Sequence[tuple[Verdict, DecodePoint]]) -> Figure:
    cell, points = record.cells[cell_id], [point for _, point in pairs]
    measured = readings(points)
    if points[0].preset == PRESET:
        folders = [record.run.trial(verdict.trial) for verdict, _ in pairs]
        measured |= phase_readings(folders, points[0].concurrency)
    return Figure(
        label=f"{cell.label()}, concurrency {points[0].concurrency}",
        name=cell.name,
        cell_id=cell_id,
        conditions=_conditions(record, cell, pairs[0][0], points),
        readings=measured,
        counted=points[0].tokens_source,
    )


def _failed(record: RunRecord, cell_id: str, asked: Sequence[tuple[str, Any]]) -> Figure:
    cell, verdicts = record.cells[cell_id], _verdicts(record, cell_id)
    last = verdicts[-1] if verdicts else None
    why = "it was not launched"
    if last is not None:
        why = f"{last.outcome.value} in {last.phase.value}" + (f" ({last.cause.id})" if last.cause else "")
        if last.outcome is Outcome.PASS:
            why = "no valid measurement"
    conditions = replace(_conditions(record, cell, last, ()), **dict(asked))
    return Figure(label=cell.label(), name=cell.name, cell_id=cell_id, conditions=conditions, failed=why)


def _unproven(record: RunRecord, cell_id: str) -> list[Figure]:
    """Points of a cell that stand in no launch of it, while others do."""
    cell, passed = record.cells[cell_id], [v for v in _verdicts(record, cell_id) if v.outcome is Outcome.PASS]
    held = {number for verdict in passed for number, point in enumerate(verdict.points) if point.against is None}
    return [
        Figure(
            label=f"{cell.label()}, concurrency {point.concurrency}",
            name=cell.name,
            cell_id=cell_id,
            conditions=_conditions(record, cell, passed[-1], (point,)),
            failed=point.against,
        )
        for number, point in enumerate(passed[-1].points if passed else ())
        if number not in held
    ]


def _conditions(record: RunRecord, cell: Cell, verdict: Verdict | None, points: Sequence[DecodePoint]) -> Conditions:
    effective, p, spec = verdict.effective if verdict else None, cell.parallelism, cell.speculative
    first = points[0] if points else None
    return Conditions(
        model=canonical_model(cell.model),
        quantization=cell.quantization,
        engine=_engine(cell),
        engine_version=(effective.engine_version if effective else None) or cell.engine_version,
        image=cell.image,
        moe_backend=_backend(cell.moe_backend, effective.moe_backend if effective else None),
        attention_backend=(effective.attention_backend if effective else None) or cell.attention_backend,
        tp=p.tp,
        pp=p.pp,
        dp=p.dp,
        ep=p.ep,
        speculative=spec.method if spec else "none",
        draft_tokens=spec.tokens if spec else 0,
        acceptance_length=_mean([point.acceptance.length if point.acceptance else None for point in points]),
        kv_cache=value_of(cell.extra_args, "--kv-cache-dtype"),
        concurrency=first.concurrency if first else None,
        isl=first.isl if first else None,
        osl=first.osl if first else None,
        context=context_of(first) if first and first.isl is not None else None,
        preset=first.preset if first else None,
        **_machine(record.facts, p.world_size),
    )


def _backend(asked: str, ran: str | None) -> str:
    if ran is None or ran.replace("-", "_") == asked.replace("-", "_"):
        return asked
    return f"auto ({ran})" if asked == "auto" else f"{ran} (asked {asked})"


def _engine(cell: Cell) -> str:
    if cell.engine != "command" or not cell.command:
        return cell.engine
    program = PurePath(cell.command[0]).name
    return _SERVERS.get(program, program)


def _machine(facts: Mapping[str, Any], world: int) -> dict[str, Any]:
    """GPU conditions from the host where NVML listed some, else from what the matrix declares."""
    host, declared = facts.get("host") or {}, facts.get("hardware") or {}
    gpus = [gpu for gpu in host.get("gpus") or () if gpu.get("name")]
    name = gpus[0]["name"] if gpus else declared.get("gpu")
    none = not gpus and (declared.get("count") == 0 or (bool(host) and name is None))
    system = None
    if "wsl" in host:
        system = "wsl2" if host.get("wsl") else "linux"
    links = [link.get("p2p") for link in host.get("links") or ()]
    return {
        "gpu": "no GPU" if none else str(name).split(",")[0] if name else None,
        "gpus": 0 if none else world,
        "mig": any(gpu.get("mig") for gpu in gpus) if gpus else ("mig" in str(name).lower() or None),
        "power_limit_w": (gpus[0].get("power_limit_w") if gpus else None) or declared.get("power_limit_w"),
        "os": system,
        "p2p": all(link == "ok" for link in links) if links else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def readings(points: Sequence[DecodePoint]) -> dict[tuple[str, str], Reading]:
    """Per (kind, unit) the mean over launches with its interval; `points` are one a launch, of one workload."""
    series = [max(point.series_tok_s, default=None) for point in points]
    made = {
        ("output", "tok/s"): [point.decode_tok_s for point in points],
        ("end-to-end", "tok/s"): [point.serving_tok_s for point in points],
        ("total", "tok/s"): [_total(point) for point in points],
        ("peak", "tok/s"): series,
        ("per-user", "tok/s"): [point.decode_tok_s_per_stream for point in points],
        ("prefill", "tok/s"): [point.prefill_tok_s for point in points],
        ("energy", "J/1k tok"): [point.energy.joules_per_1k_tokens if point.energy else None for point in points],
        ("power", "W"): [point.energy.mean_w if point.energy else None for point in points],
        ("power", "% of limit"): [_percent(point.energy.power_share if point.energy else None) for point in points],
        ("acceptance", "%"): [_percent(point.acceptance.rate if point.acceptance else None) for point in points],
        ("acceptance", "tokens/step"): [point.acceptance.length if point.acceptance else None for point in points],
        ("latency", "ms/token"): [point.itl_ms.mean for point in points],
    }
    out = {}
    for key, values in made.items():
        known = [value for value in values if value is not None]
        if known:
            best = [*known, *(value for value in series if value is not None)] if key[0] == "output" else known
            stats = describe(known)
            out[key] = Reading(value=stats.mean, interval=stats.interval, launches=stats.n, best=max(best))
    return out


def _total(point: DecodePoint) -> float | None:
    if point.serving_tok_s is None or not point.isl or not point.osl:
        return None
    return point.serving_tok_s * (point.isl + point.osl) / point.osl


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
