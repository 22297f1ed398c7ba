"""Columns of the ranking: which exist, how they print, and which of them a table needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from sweeper.core.points import DecodePoint
from sweeper.report.model import DASH, Line, Model, Table

Column = tuple[str, Callable[[Line], str]]

SELECTED, IN_PART = " (selected)", " (in part)"
PROOF = {None: SELECTED, True: "", False: IN_PART}
EFFECTIVE_KEYS = ("MoE backend", "linear", "attention", "TP", "PP", "EP")


def columns(model: Model, table: Table) -> list[Column]:
    """Place and label first, then what varies, then the figures that at least one line has."""
    chosen: list[Column] = [("place", _place), ("cell", lambda line: line.row.label)]
    chosen += [(key, _requested(key)) for key in model.varying if key not in ("env", "args", "image")]
    for key in EFFECTIVE_KEYS:
        if any(_differs(line, key) for line in table.lines):
            chosen.append((f"{key} ran", _moe_ran if key == "MoE backend" else _effective(key)))
    unit = RATES[table.metric != "decode"]
    chosen += [(unit, _rate), ("vs best", _ratio)]
    figures = [column for column in FIGURES if any(column[1](line) != DASH for line in table.lines)]
    launches = [] if same_launches(table) else [("launches", _launches)]
    return chosen + figures + launches


def same_launches(table: Table) -> int | None:
    """Launches a cell where all lines have as many: then the heading says it, not a column."""
    counts = {line.row.launches for line in table.lines}
    return counts.pop() if len(counts) == 1 else None


def heading(table: Table) -> str:
    """What the table ranks, and what is the same in all of its lines."""
    launches = same_launches(table)
    each = f"; {launches} launch{'es' if launches > 1 else ''} a cell" if launches else ""
    return (
        f"{table.workload} at concurrency {table.concurrency}, ISL {table.isl or DASH}, OSL {table.osl or DASH}{each}"
    )


def legend(table: Table) -> list[str]:
    """The marks that this table uses, and what would separate its cells."""
    lines = []
    if any(line.row.tied for line in table.lines):
        lines.append("= the evidence does not separate these cells")
    if any(line.row.provisional for line in table.lines):
        raced = any(line.row.launches > 1 for line in table.lines)
        up = all(line.cell.url for line in table.lines if line.row.provisional)
        how = "a server that was up is measured once" if up else "more: --launches 3 --resume"
        more = "repeats went to the contenders" if raced and not up else f"places are provisional ({how})"
        lines.append(f"? one launch: no spread is known, {more}")
    if any(line.row.interval for line in table.lines):
        lines.append("± and [ ] are 95 % intervals over launches, of the mean and of the ratio to the best")
    if any(line.launched > line.row.launches for line in table.lines):
        lines.append("the launch that chose a cell for repeats does not count: places come from fresh launches")
    if any(line.reached for line in table.lines):
        lines.append("of limit: share of the speed of light, and the largest part of a step at that limit")
    shown = any(_differs(line, "MoE backend") for line in table.lines)
    proofs = {_proven(line) for line in table.lines if shown and "MoE backend" in line.effective}
    if None in proofs:
        lines.append("(selected) the log names this MoE backend; no line proves which kernel ran")
    if False in proofs:
        lines.append("(in part) the log shows another MoE kernel for some or all calls")
    need = [line for line in table.lines if line.row.needs_launches]
    lines += [
        f"{line.row.label}: {line.row.needs_launches} launches a cell would separate it from the best" for line in need
    ]
    return lines


def remarks(model: Model) -> list[str]:
    """What is said below everything else: notes, and how to go on with an unfinished run."""
    lines = list(model.notes)
    if model.pending:
        cells = "1 cell" if model.pending == 1 else f"{model.pending} cells"
        lines.append(f"{cells} not tried yet: sweeper run MATRIX --resume {model.run_id}")
    return lines


def cells_of(line: Line, chosen: Sequence[Column]) -> list[str]:
    """One row."""
    return [show(line) for _, show in chosen]


def _place(line: Line) -> str:
    return f"{line.row.place}{'=' if line.row.tied else ''}{'?' if line.row.provisional else ''}"


def _launches(line: Line) -> str:
    return str(line.row.launches)


def _requested(key: str) -> Callable[[Line], str]:
    return lambda line: line.requested.get(key, DASH)


def _effective(key: str) -> Callable[[Line], str]:
    return lambda line: line.effective.get(key, DASH)


def _moe_ran(line: Line) -> str:
    """The name in the log, with how far it is proven: most kernels leave no line of their own."""
    name = line.effective.get("MoE backend", DASH)
    return name if name == DASH else name + PROOF[_proven(line)]


def _proven(line: Line) -> bool | None:
    facts = line.verdicts[-1].effective if line.verdicts else None
    return facts.moe_backend_ran if facts else None


def _differs(line: Line, key: str) -> bool:
    ran = line.effective.get(key)
    return ran is not None and ran != line.requested.get(key)


def _rate(line: Line) -> str:
    half = (line.row.interval.high - line.row.interval.low) / 2 if line.row.interval else None
    return f"{number(line.row.decode_tok_s)}" + (f" ± {number(half)}" if half is not None else "")


def _ratio(line: Line) -> str:
    interval = line.row.ratio_interval
    text = f"{line.row.ratio_to_best:.2f}"
    return text + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else "")


def number(value: float | None) -> str:
    """Three significant digits at least, none invented; None prints `-`."""
    if value is None:
        return DASH
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def mean_of(points: Sequence[DecodePoint], get: Callable[[DecodePoint], float | None]) -> float | None:
    """Mean over launches; None where no launch has the figure."""
    values = [value for point in points if (value := get(point)) is not None]
    return fmean(values) if values else None


def _figure(get: Callable[[DecodePoint], float | None]) -> Callable[[Line], str]:
    return lambda line: number(mean_of(line.points, get))


def _reached(line: Line) -> str:
    return f"{line.reached.share:.0%} {line.reached.term}" if line.reached else DASH


def gpu_state(line: Line) -> str | None:
    """The states that the GPUs were in, over the launches; None where no driver told."""
    return ", ".join(dict.fromkeys(p.energy.state for p in line.points if p.energy and p.energy.state)) or None


def _not_fine(line: Line) -> str:
    state = gpu_state(line)
    return DASH if state in (None, "fine") else str(state)


FIGURES: tuple[Column, ...] = (
    ("per stream", _figure(lambda point: point.decode_tok_s_per_stream if point.concurrency > 1 else None)),
    ("of limit", _reached),
    ("TTFT p50 ms", _figure(lambda point: point.ttft_ms.p50)),
    ("ITL mean ms", _figure(lambda point: point.itl_ms.mean)),
    ("accept len", _figure(lambda point: point.acceptance.length if point.acceptance else None)),
    ("prefill tok/s", _figure(lambda point: point.prefill_tok_s if point.preset == "context-ladder" else None)),
    ("J/1k tok", _figure(lambda point: point.energy.joules_per_1k_tokens if point.energy else None)),
    ("W", _figure(lambda point: point.energy.mean_w if point.energy else None)),
    ("GPU state", _not_fine),
)

RATES = ("decode tok/s", "serving tok/s")
"""What is ranked: one of them is in every table."""
RIGHT = frozenset({*RATES, "vs best", "launches", *(name for name, _ in FIGURES)} - {"of limit", "GPU state"})
"""Columns of figures: the ends of numbers stand below one another."""
