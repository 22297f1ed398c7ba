"""The object that `sweeper bench --json` prints for one point: DESIGN.md section 5, schema 1. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sweeper.core.points import DecodePoint, Quantiles
from sweeper.core.windows import EXACT_SOURCES
from sweeper.core.windows_point import source_flag

if TYPE_CHECKING:
    from sweeper.core.roofline import Reached


def bench_object(point: DecodePoint, limit: Reached | None = None) -> dict[str, Any]:
    """Keys of schema 1 in their order, then further ones (`tokens_exact` and on) that readers may ignore.

    `tokens_source` is `usage` for a count given at the end of a stream as well; `tokens_exact` is false then, as it is
    for `tokenizer`, and `tokens_flag` says it in words.
    """
    accepted = point.acceptance
    return {
        "schema": 1,
        "preset": point.preset,
        "concurrency": point.concurrency,
        "isl": point.isl,
        "osl": point.osl,
        "decode_tok_s": _round(point.decode_tok_s),
        "decode_tok_s_per_stream": _round(point.decode_tok_s_per_stream),
        "serving_tok_s": _round(point.serving_tok_s),
        "prefill_tok_s": _round(point.prefill_tok_s),
        "ttft_ms": _quantiles(point.ttft_ms),
        "itl_ms": _quantiles(point.itl_ms),
        "chunk_gap_ms": _quantiles(point.chunk_gap_ms),
        "tokens": point.tokens,
        "tokens_source": "usage" if point.tokens_source == "final_usage" else point.tokens_source,
        "window_s": _round(point.window_s),
        "acceptance": {"rate": _round(accepted.rate), "length": _round(accepted.length)} if accepted else None,
        "server_tok_s": _round(point.server_tok_s),
        "client_cpu_s": _round(point.client_cpu_s),
        "client_bound": point.client_bound,
        "tokens_exact": point.tokens_source in EXACT_SOURCES,
        "requests": point.requests,
        "errors": list(point.errors),
        "invalid": list(point.invalid),
        "steps_s": _round(point.steps_s),
        "acceptance_per_position": [_round(p) for p in accepted.per_position] if accepted else None,
        "series_tok_s": [_round(v) for v in point.series_tok_s],
        "stream_range_tok_s": [_round(v) for v in point.stream_range_tok_s] if point.stream_range_tok_s else None,
        "energy": _energy(point),
        "seed": point.seed,
        "tokens_flag": source_flag(point.tokens_source),
        "server_difference": _round(point.server_difference),
        "rate": _round(point.rate),
        "limit": asdict(limit) if limit else None,
    }


def _energy(point: DecodePoint) -> dict[str, Any] | None:
    energy = point.energy
    if energy is None:
        return None
    return {
        "joules": _round(energy.joules),
        "joules_per_1k_tokens": _round(energy.joules_per_1k_tokens),
        "mean_w": _round(energy.mean_w),
        "power_share": _round(energy.power_share),
        "idle_w": _round(energy.idle_w),
        "state": energy.state,
        "why": energy.why,
    }


def _quantiles(values: Quantiles) -> dict[str, float | None]:
    return {"mean": _round(values.mean), "p50": _round(values.p50), "p99": _round(values.p99)}


def _round(value: float | None) -> float | None:
    """Six significant digits: below the noise of any of these figures."""
    return None if value is None else float(f"{value:.6g}")
