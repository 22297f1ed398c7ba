"""Results in the table layout of the publication that a preset re-runs. Pure; Markdown that reads well as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import fmean, stdev

from sweeper.core.energyruns import energy_over_runs
from sweeper.core.points import DecodePoint
from sweeper.core.presets import LoadResult, RunFigure
from sweeper.core.windows_point import source_flag

DASH = "-"
REFERENCE_NAMES = ("fp16", "bf16", "float16", "bfloat16")


def render_preset_table(preset: str, results: Mapping[str, LoadResult]) -> str:
    """`results` by row label: a model, a configuration, a precision. Unknown prints `-`; notes follow the table."""
    body = _LAYOUTS.get(preset, _general)(results)
    return body + "".join(f"\n{note}" for note in _notes(results)) + "\n"


def _sustained(results: Mapping[str, LoadResult]) -> str:
    header = ["configuration", "streams", "decode tok/s", "per stream", "TTFT ms", "acceptance", "J/1k tok", "remark"]
    rows = [
        [
            label,
            str(p.concurrency),
            _n(p.decode_tok_s, 1),
            _n(p.decode_tok_s_per_stream, 1),
            _n(p.ttft_ms.p50, 0),
            _acceptance(p),
            _n(p.energy.joules_per_1k_tokens if p.energy else None, 0),
            _remark(p),
        ]
        for label, p in _points(results)
    ]
    return table(header, rows)


def _serving(results: Mapping[str, LoadResult]) -> str:
    header = ["configuration", "concurrency", "requests", "max_tokens", "QPS", "prompt tok/s", "decode tok/s"]
    header += ["latency s (mean)", "latency s (p99)", "sustained decode tok/s", "remark"]
    rows = []
    for label, result in results.items():
        for p in result.points:
            mine = [r for r in result.requests if r.get("concurrency") == p.concurrency and not r.get("error")]
            took = sorted(r["ended_s"] - r["sent_s"] for r in mine)
            span = max(r["ended_s"] for r in mine) - min(r["sent_s"] for r in mine) if mine else 0.0
            prompts = sum(r.get("prompt_tokens") or 0 for r in mine)
            rows.append(
                [
                    label,
                    str(p.concurrency),
                    str(p.requests),
                    str(p.osl or DASH),
                    _n(len(mine) / span if span else None, 2),
                    _n(prompts / span if span and prompts else None, 1),
                    _n(p.serving_tok_s, 2),
                    _n(fmean(took) if took else None, 2),
                    _n(took[min(len(took) - 1, int(0.99 * len(took)))] if took else None, 2),
                    _n(p.decode_tok_s, 2),
                    _remark(p),
                ]
            )
    return table(header, rows)


def _ladder(results: Mapping[str, LoadResult]) -> str:
    several = len(results) > 1
    header = ["configuration"] * several + ["ctx", "prefill tok/s", "gen tok/s", "gen tokens", "remark"]
    rows = [
        [label] * several
        + [str(p.isl or DASH), _n(p.prefill_tok_s, 1), _n(p.decode_tok_s, 1), str(p.osl or DASH), _remark(p)]
        for label, p in _points(results)
    ]
    return table(header, rows)


def _e2e(results: Mapping[str, LoadResult]) -> str:
    header = ["Model", "Batch", "Generated Tokens", "Energy (J/1k tok)", "Throughput (tok/s)", "Average Power (W)"]
    header += ["Runs", "CV", "Stable (CV < 3 %)"]
    rows = []
    for label, result in results.items():
        for (batch, osl), group in groupby(result.runs, key=lambda r: (r.batch, r.osl)):
            runs = list(group)
            joules = [1000 * r.joules / r.tokens for r in runs if r.joules is not None and r.tokens]
            energy = energy_over_runs(joules)
            rows.append(
                [
                    label,
                    str(batch),
                    str(osl),
                    _spread(joules, 2),
                    _spread([r.tokens / r.seconds for r in runs if r.seconds > 0], 2),
                    _spread([r.mean_w for r in runs if r.mean_w is not None], 2),
                    str(len(runs)),
                    f"{100 * energy.cv:.1f} %" if energy and energy.cv is not None else DASH,
                    ("yes" if energy.stable else "no") if energy and energy.stable is not None else DASH,
                ]
            )
    return table(header, rows)


def _phases(results: Mapping[str, LoadResult]) -> str:
    header = ["Configuration", "Batch", "Prefill Energy / Call (J)", "Decode Energy / 32 tok (J)", "Decode tok/s"]
    header += ["Prefill Energy Ratio", "Decode Energy Ratio", "Decode Speed Ratio"]
    header += ["Prefill Power (W)", "% of limit", "Decode Power (W)", "% of limit"]
    figures = {(label, run.batch, run.phase): run for label, result in results.items() for run in result.runs}
    base = _reference(results)
    rows = []
    for label, result in results.items():
        for batch in dict.fromkeys(run.batch for run in result.runs):
            first, second = figures.get((label, batch, "prefill")), figures.get((label, batch, "decode"))
            ref1, ref2 = figures.get((base, batch, "prefill")), figures.get((base, batch, "decode"))
            rows.append(
                [
                    label,
                    str(batch),
                    _n(_joules(first), 3),
                    _n(_joules(second, per_32=True), 3),
                    _n(_speed(second), 2),
                    _ratio(_joules(first), _joules(ref1)),
                    _ratio(_joules(second), _joules(ref2)),
                    _ratio(_speed(second), _speed(ref2)),
                    _n(first.mean_w if first else None, 0),
                    _share(first),
                    _n(second.mean_w if second else None, 0),
                    _share(second),
                ]
            )
    return table(header, rows) + f"\nRatios are to {base} at the same batch.\n"


def _general(results: Mapping[str, LoadResult]) -> str:
    return _sustained(results)


_LAYOUTS: Mapping[str, Callable[[Mapping[str, LoadResult]], str]] = {
    "sustained-decode": _sustained,
    "serving-16x64x256": _serving,
    "context-ladder": _ladder,
    "energy-e2e": _e2e,
    "energy-phases": _phases,
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; numbers to the right. A bar inside a cell is escaped."""
    rows = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    widths = [max([3, len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(header)]
    right = [bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(header), rule, *(line(row) for row in rows)]) + "\n"


def _points(results: Mapping[str, LoadResult]) -> list[tuple[str, DecodePoint]]:
    return [(label, point) for label, result in results.items() for point in result.points]


def _notes(results: Mapping[str, LoadResult]) -> list[str]:
    """Why an energy column is empty, once per reason."""
    why = [p.energy.why for _, p in _points(results) if p.energy and p.energy.joules is None and p.energy.why]
    why += [run.why for result in results.values() for run in result.runs if run.joules is None and run.why]
    return [f"Energy: {reason}" for reason in dict.fromkeys(why)]


def _reference(results: Mapping[str, LoadResult]) -> str:
    """The row named like a 16-bit precision, else the first."""
    return next(
        (label for label in results if any(n in label.lower() for n in REFERENCE_NAMES)), next(iter(results), "")
    )


def _remark(point: DecodePoint) -> str:
    flag = source_flag(point.tokens_source)
    loop = [f"open loop, {point.rate:g} requests/s: {_n(point.serving_tok_s, 1)} tok/s served"] if point.rate else []
    return "; ".join([*point.invalid, *point.errors, *([flag] if flag else []), *loop])


def _acceptance(point: DecodePoint) -> str:
    accepted = point.acceptance
    if accepted is None or accepted.rate is None or accepted.length is None:
        return DASH
    return f"{100 * accepted.rate:.0f} % (length {accepted.length:.2f})"


def _joules(run: RunFigure | None, *, per_32: bool = False) -> float | None:
    """Per wave; `per_32`: per 32 steps of the batch."""
    if run is None or run.joules is None:
        return None
    return run.joules * 32 / run.osl if per_32 else run.joules


def _speed(run: RunFigure | None) -> float | None:
    return run.tokens / run.seconds if run is not None and run.seconds > 0 else None


def _share(run: RunFigure | None) -> str:
    return f"{100 * run.power_share:.0f}%" if run is not None and run.power_share is not None else DASH


def _ratio(value: float | None, reference: float | None) -> str:
    return f"{value / reference:.2f}x" if value is not None and reference else DASH


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean ± one standard deviation over runs."""
    if not values:
        return DASH
    mean = f"{fmean(values):,.{digits}f}"
    return f"{mean} ± {stdev(values):,.{digits}f}" if len(values) > 1 else mean


def _n(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _numeric(cell: str) -> bool:
    return cell == DASH or (bool(cell) and (cell[0].isdigit() or cell[0] == "-"))
