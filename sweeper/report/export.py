"""CSV and JSON. The JSON is the `report` object of the command line, `schema` 1; keys are added, never redefined."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from sweeper.core import codec
from sweeper.report.columns import gpu_state, mean_of
from sweeper.report.model import Line, Model, Table, Unranked

FIELDS = (
    "workload", "isl", "osl", "concurrency", "place", "tied", "provisional", "cell", "label", "outcome", "decode_tok_s",
    "interval_low", "interval_high", "ratio_to_best", "serving_tok_s", "prefill_tok_s", "ttft_p50_ms", "ttft_p99_ms",
    "itl_mean_ms", "itl_p99_ms", "acceptance_rate", "acceptance_length", "joules_per_1k_tokens", "mean_w", "launches",
    "moe_backend_requested", "moe_backend_effective", "phase", "cause", "evidence", "limit_share", "gpu_state",
    "findings",
)  # fmt: skip


def as_json(model: Model) -> str:
    """One object: ranking of every workload and concurrency, then what has no place."""
    rows = [_json_line(table, line) for table in model.tables for line in table.lines]
    unranked = [
        {
            "cell": item.cell_id,
            "label": item.label,
            "outcome": item.outcome,
            "phase": item.phase,
            "cause": item.cause,
            "means": item.means,
            "evidence": item.evidence or None,
            "line": item.line or None,
            "elapsed_s": item.elapsed_s,
            **_asked(item),
        }
        for item in model.unranked
    ]
    whole = {
        "schema": 1,
        "run": model.run_id,
        "title": model.title,
        "host": dict(model.host),
        "same": dict(model.same),
        "ranking": rows,
        "unranked": unranked,
        "findings": list(model.findings),
        "notes": list(model.notes),
        "pending": model.pending,
        "preflight": model.saving.to_json() if model.saving else None,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _asked(item: Unranked) -> dict[str, Any]:
    """What a point without a place was asked; all None for a whole cell."""
    point = item.point
    return {
        "workload": point.preset if point else None,
        "isl": point.isl if point else None,
        "osl": point.osl if point else None,
        "concurrency": point.concurrency if point else None,
    }


def _json_line(table: Table, line: Line) -> dict[str, Any]:
    row = line.row
    return {
        "place": row.place,
        "tied": row.tied,
        "provisional": row.provisional,
        "cell": row.cell_id,
        "label": row.label,
        "workload": table.workload,
        "concurrency": table.concurrency,
        "isl": table.isl,
        "osl": table.osl,
        "metric": table.metric,
        "requested": dict(line.requested),
        "effective": dict(line.effective),
        "decode_tok_s": row.decode_tok_s,
        "interval": [row.interval.low, row.interval.high] if row.interval else None,
        "launches": row.launches,
        "ratio_to_best": row.ratio_to_best,
        "ratio_interval": [row.ratio_interval.low, row.ratio_interval.high] if row.ratio_interval else None,
        "needs_launches": row.needs_launches,
        "points": [codec.dump(point) for point in line.points],
        "limit": codec.dump(line.reached) if line.reached else None,
        "findings": list(line.findings),
    }


def as_csv(model: Model) -> str:
    """One row per ranked cell and concurrency, then one per cell without a place. Unknown is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for table in model.tables:
        for line in table.lines:
            writer.writerow({key: "" if value is None else value for key, value in _csv_line(table, line).items()})
    for item in model.unranked:
        writer.writerow(
            {"cell": item.cell_id, "label": item.label, "outcome": item.outcome, "phase": item.phase,
             "cause": item.cause, "evidence": item.evidence, **{k: v for k, v in _asked(item).items() if v is not None}}
        )  # fmt: skip
    return out.getvalue()


def _csv_line(table: Table, line: Line) -> dict[str, Any]:
    row, points = line.row, line.points
    return {
        "workload": table.workload,
        "isl": table.isl,
        "osl": table.osl,
        "concurrency": table.concurrency,
        "place": row.place,
        "tied": row.tied,
        "provisional": row.provisional,
        "cell": row.cell_id,
        "label": row.label,
        "outcome": "PASS",
        "decode_tok_s": row.decode_tok_s,
        "interval_low": row.interval.low if row.interval else None,
        "interval_high": row.interval.high if row.interval else None,
        "ratio_to_best": row.ratio_to_best,
        "serving_tok_s": mean_of(points, lambda p: p.serving_tok_s),
        "prefill_tok_s": mean_of(points, lambda p: p.prefill_tok_s),
        "ttft_p50_ms": mean_of(points, lambda p: p.ttft_ms.p50),
        "ttft_p99_ms": mean_of(points, lambda p: p.ttft_ms.p99),
        "itl_mean_ms": mean_of(points, lambda p: p.itl_ms.mean),
        "itl_p99_ms": mean_of(points, lambda p: p.itl_ms.p99),
        "acceptance_rate": mean_of(points, lambda p: p.acceptance.rate if p.acceptance else None),
        "acceptance_length": mean_of(points, lambda p: p.acceptance.length if p.acceptance else None),
        "joules_per_1k_tokens": mean_of(points, lambda p: p.energy.joules_per_1k_tokens if p.energy else None),
        "mean_w": mean_of(points, lambda p: p.energy.mean_w if p.energy else None),
        "launches": row.launches,
        "moe_backend_requested": line.requested.get("MoE backend"),
        "moe_backend_effective": line.effective.get("MoE backend"),
        "limit_share": line.reached.share if line.reached else None,
        "gpu_state": gpu_state(line),
        "findings": "; ".join(line.findings),
    }
