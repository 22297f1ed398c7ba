"""A plan for a terminal. Commands are never wrapped: they are there to be pasted."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from sweeper.core.bounds import TimeBound
from sweeper.core.values import Hardware, Workload
from sweeper.plan.rows import Plan, PlanRow

GIB = 1024**3


def text(plan: Plan, *, commands: bool = False, width: int | None = None) -> str:
    """`width` in columns; default: the terminal's."""
    wide = max(40, width or shutil.get_terminal_size((100, 24)).columns)
    running = [row for row in plan.rows if row.status != "excluded"]
    excluded = [row for row in plan.rows if row.status == "excluded"]
    parts = [_head(plan, len(running), len(excluded), wide)]
    parts.append(_cells(running, wide, commands=commands))
    parts.append(_warnings(running, wide))
    parts.append(_excluded(excluded, len(running), wide))
    parts.append("\n".join(_wrapped(f"note: {note}", wide) for note in plan.matrix.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(plan: Plan, running: int, excluded: int, wide: int) -> str:
    matrix, bound = plan.matrix, plan.bound
    lines = [f"{matrix.name}: {matrix.title}" if matrix.title else matrix.name]
    machine = _machine(matrix.hardware)
    if machine:
        lines.append(f"for {machine}")
    lines += [f"asks {_workload(workload)}" for workload in matrix.workloads]
    if matrix.policy.preflight or matrix.policy.canary:
        lines.append(f"kernels are tried first on {matrix.policy.canary or 'a canary built like each model'}")
    lines.append(f"{_count(running, 'cell')} to run, {excluded} excluded")
    if running:
        lines.append(_bound(bound))
    lines += plan.sizes
    return "\n".join(_wrapped(line, wide) for line in lines)


def _bound(bound: TimeBound) -> str:
    parts = [f"{_count(bound.launches, 'launch', 'launches')} of {duration(bound.launch_s)}"]
    if bound.canaries:
        parts.append(f"{bound.canaries} of a canary of {duration(bound.canary_s)}")
    parts += [f"{duration(bound.build_s)} for building canaries"] if bound.build_s else []
    parts += [f"{duration(bound.pull_s)} for images"] if bound.pull_s else []
    return f"at most {duration(bound.total_s)} with every phase at its deadline: {', '.join(parts)}"


def _machine(hardware: Hardware) -> str:
    if hardware.count == 0:
        return "a machine without GPUs"
    if hardware.gpu is None and hardware.count is None:
        return ""
    facts = [
        f"{hardware.memory_gib:g} GiB" if hardware.memory_gib else "",
        f"sm {hardware.sm}" if hardware.sm else "",
        f"{hardware.bandwidth_gb_s:g} GB/s" if hardware.bandwidth_gb_s else "",
        hardware.link or "",
        f"{hardware.power_limit_w:g} W" if hardware.power_limit_w else "",
    ]
    told = ", ".join(filter(None, facts))
    return f"{hardware.count or '?'} x {hardware.gpu or 'GPU'}" + (f" ({told})" if told else "")


def _workload(workload: Workload) -> str:
    streams = ", ".join(map(str, workload.concurrency))
    name = workload.name if workload.name == workload.preset else f"{workload.name} ({workload.preset})"
    return f"{name}: ISL {workload.isl}, OSL {workload.osl}, concurrency {streams}"


def _cells(rows: Sequence[PlanRow], wide: int, *, commands: bool) -> str:
    """Number, id, label; memory beside the label where the line is wide enough for all of them."""
    label_width = max((len(row.cell.label()) for row in rows), default=0)
    memories = [_memory(row) for row in rows]
    beside = 19 + label_width + 2 + max((len(one) for one in memories), default=0) <= wide
    lines = []
    for number, (row, memory) in enumerate(zip(rows, memories, strict=True), 1):
        label = row.cell.label()
        head = f"{number:>3}  {row.cell_id}  "
        if memory and beside:
            lines.append(f"{head}{label:<{label_width}}  {memory}")
        else:
            lines.append(_wrapped(head + label, wide, 19))
            lines += [_wrapped(" " * 19 + memory, wide, 19)] if memory else []
        if commands:
            lines.append("     $ " + (row.command or "-"))
    return "\n".join(lines)


def _memory(row: PlanRow) -> str:
    if row.memory is None:
        return ""
    fit = row.memory
    most = f"{fit.dominating} {fit.parts[fit.dominating] / GIB:.1f}"
    limit = f" of {fit.limit_bytes / GIB:.1f}" if fit.limit_bytes is not None else ""
    fits = {True: "fits", False: "does not fit", None: "limit unknown"}[fit.fits]
    return f"{fits}: {fit.per_rank_bytes / GIB:.1f}{limit} GiB per GPU, {most}"


def _warnings(rows: Sequence[PlanRow], wide: int) -> str:
    """One entry per text, with the numbers of the cells that it is about."""
    about: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 1):
        for reason in row.reasons:
            about.setdefault(reason, []).append(number)
    lines = [_wrapped(f"  {ranges(numbers)}: {reason}", wide, 4) for reason, numbers in about.items()]
    return "\n".join(["warnings, by cell number", *lines]) if lines else ""


def _excluded(rows: Sequence[PlanRow], before: int, wide: int) -> str:
    lines = []
    for number, row in enumerate(rows, before + 1):
        lines.append(_wrapped(f"{number:>3}  {row.cell_id}  {row.cell.label()}", wide, 19))
        lines += [_wrapped(f"       {reason}", wide, 7) for reason in row.reasons]
        if row.memory is not None and row.memory.fits is False:
            lines.append(_wrapped(f"       {_memory(row)}; would fit with: {row.memory.knob}", wide, 7))
    return "\n".join(["excluded", *lines]) if lines else ""


def _wrapped(line: str, wide: int, indent: int = 2) -> str:
    kept = textwrap.wrap(
        line, wide, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip
    return "\n".join(kept)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def ranges(numbers: Iterable[int]) -> str:
    """`1-3, 5` for 1, 2, 3, 5."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[1]}" for part in parts)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, rounded up: it stands for a bound."""
    if seconds <= 120:
        return f"{-(-seconds // 1):.0f} s"
    minutes = int(-(-seconds // 60))
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
