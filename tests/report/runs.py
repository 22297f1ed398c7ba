"""Report models made by hand: two ranked cells, one that fails, one that is excluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.core.effective import EffectiveConfig
from sweeper.core.identity import cell_id
from sweeper.core.points import Acceptance, DecodePoint, Quantiles
from sweeper.core.values import Cell, Speculative
from sweeper.core.verdicts import Cause, Finding, Outcome, Phase, Verdict
from sweeper.report.model import Model, build

AUTO = Cell(engine="vllm", model="m", moe_backend="auto")
MARLIN = Cell(engine="vllm", model="m", moe_backend="marlin", speculative=Speculative(method="mtp", tokens=2))
BROKEN = Cell(engine="vllm", model="m", moe_backend="cutlass")
LINE = (
    "(EngineCore pid=7) ERROR 11-21 08:08:49 [core.py:1510] RuntimeError: Failed to initialize <b>cutlass</b> TMA WS "
    "grouped gemm | Error Internal"
)
CAUSE = Cause(
    id="cutlass-tma-ws-init",
    means="The grouped GEMM does not initialise on this GPU.",
    try_="--moe-backend marlin",
    line=LINE,
    line_no=61,
    log="trials/x-1/server.log",
)


def point(rate: float | None, concurrency: int = 8, **changes: Any) -> DecodePoint:
    values: dict[str, Any] = {
        "preset": "sustained-decode",
        "concurrency": concurrency,
        "isl": 64,
        "osl": 768,
        "decode_tok_s": rate,
        "decode_tok_s_per_stream": None if rate is None else rate / concurrency,
        "serving_tok_s": None,
        "prefill_tok_s": None,
        "ttft_ms": Quantiles(mean=21.0, p50=20.7, p99=30.0),
        "itl_ms": Quantiles(mean=4.8, p50=4.7, p99=9.0),
        "chunk_gap_ms": Quantiles(mean=4.8, p50=4.7, p99=9.0),
        "tokens": 1000,
        "tokens_source": "usage",
        "window_s": 5.0,
        "acceptance": None,
        "server_tok_s": None,
        "client_cpu_s": None,
        "client_bound": False,
    }
    return DecodePoint(**{**values, **changes})


def passed(cell: Cell, *points: DecodePoint, attempt: int = 1, **changes: Any) -> Verdict:
    name = cell_id(cell)
    values: dict[str, Any] = {"outcome": Outcome.PASS, "phase": Phase.MEASURE, "elapsed_s": 45.0}
    return Verdict(cell_id=name, trial=f"{name}-{attempt}", points=points, **{**values, **changes})


def failed(cell: Cell, cause: Cause = CAUSE, **changes: Any) -> Verdict:
    values: dict[str, Any] = {"outcome": Outcome.FAIL, "phase": Phase.READY, "elapsed_s": 28.0}
    name = cell_id(cell)
    return Verdict(cell_id=name, trial=f"{name}-1", cause=cause, **{**values, **changes})


def model(verdicts: Mapping[Cell, Sequence[Verdict]], **changes: Any) -> Model:
    values: dict[str, Any] = {
        "run_id": "2026-11-21T080703Z-demo-5f81",
        "title": "Backends of a small model",
        "host": {"cpu": "AMD EPYC", "cores": 2, "gpus": []},
        "cells": {cell_id(cell): cell for cell in verdicts},
        "verdicts": {cell_id(cell): list(trials) for cell, trials in verdicts.items()},
    }
    return build(**{**values, **changes})


def mixed() -> Model:
    """auto (ran triton) before marlin, one launch each; cutlass fails; a fourth cell was never launched."""
    ran = EffectiveConfig(engine="vllm", moe_backend="triton")
    accepted = Acceptance(rate=0.6, length=2.2)
    return model(
        {
            AUTO: [passed(AUTO, point(872.4), effective=ran)],
            MARLIN: [passed(MARLIN, point(354.0, acceptance=accepted))],
            BROKEN: [failed(BROKEN)],
        },
        excluded=[{"id": "e" * 12, "label": "vllm deep_gemm", "reasons": ["no such kernel on this GPU"]}],
    )


def launches(cell: Cell, *rates: float) -> list[Verdict]:
    return [passed(cell, point(rate), attempt=number) for number, rate in enumerate(rates, 1)]


def with_findings(count: int) -> Model:
    findings = tuple(Finding(id="f", text=f"finding number {number}") for number in range(count))
    return model({AUTO: [passed(AUTO, point(100.0), findings=findings)]})
