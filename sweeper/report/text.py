"""The report for a terminal and as Markdown, from one table model."""

from __future__ import annotations

import shutil
import textwrap

from tabulate import tabulate

from sweeper.report.columns import FIGURES, cells_of, columns
from sweeper.report.model import DASH, Model, Table, Unranked

MAX_FINDINGS = 12
LABEL_SHARE = 0.33
"""Of the width: the widest a cell's label may be before it is wrapped."""
MIN_LABEL = 26
HEADER = 9
"""Characters of a heading before it takes a second line."""


def text(model: Model, *, width: int | None = None) -> str:
    """Plain text that fits `width` columns; where the table is wider, columns are left out and named below it."""
    wide = width or shutil.get_terminal_size((100, 24)).columns
    parts = [_head(model, wide)]
    parts += [_table(model, table, wide) for table in model.tables]
    if not model.tables:
        parts.append("No cell passed; nothing is ranked.")
    parts += [_unranked(model, wide), _findings(model, wide), _notes(model, wide)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(model: Model, wide: int) -> str:
    same = " · ".join(f"{key} {value}" for key, value in model.same.items() if key not in ("env", "args", "DP"))
    gpu = str(model.host.get("summary") or "")
    lines = [model.title or model.run_id, *textwrap.wrap(f"same in all cells: {same}", wide)]
    if gpu:
        lines += textwrap.wrap(f"host: {gpu}", wide)
    return "\n".join(lines)


def _title(table: Table) -> str:
    sizes = f", ISL {table.isl or DASH}, OSL {table.osl or DASH}"
    return f"{table.workload} at concurrency {table.concurrency}{sizes}"


def _table(model: Model, table: Table, wide: int) -> str:
    chosen = columns(model, table)
    dropped: list[str] = []
    while True:
        rows = [cells_of(line, chosen) for line in table.lines]
        # A long label takes a second line before it costs the table a figure.
        widths = [max(MIN_LABEL, int(LABEL_SHARE * wide)) if name == "cell" else None for name, _ in chosen]
        body = tabulate(
            rows,
            headers=[name for name, _ in chosen],
            tablefmt="simple",
            disable_numparse=True,
            maxcolwidths=widths,
            maxheadercolwidths=HEADER,
        )
        victim = _victim([name for name, _ in chosen], model)
        if max(len(line) for line in body.splitlines()) <= wide or victim is None:
            break
        dropped.append(chosen.pop(victim)[0])
    legend = _legend(table)
    if dropped:
        hidden = [name for name in dropped if name not in model.varying]
        legend += [f"not shown at this width: {', '.join(hidden)} (--format csv has them)"] if hidden else []
    return "\n".join([_title(table), body, *(line for item in legend for line in textwrap.wrap(item, wide))])


def _victim(names: list[str], model: Model) -> int | None:
    """Which column goes first: what the label says already, then figures from the right; the rate stays."""
    figures = {name for name, _ in FIGURES}
    for group in (set(model.varying), figures, {"launches"}):
        found = [i for i, name in enumerate(names) if name in group]
        if found:
            return found[0] if group == set(model.varying) else found[-1]
    return None


def _legend(table: Table) -> list[str]:
    lines = []
    if any(line.row.tied for line in table.lines):
        lines.append("= the evidence does not separate these cells")
    if any(line.row.provisional for line in table.lines):
        lines.append("? one launch: no spread is known, places are provisional (more: --launches 3 --resume)")
    need = [line for line in table.lines if line.row.needs_launches]
    lines += [
        f"{line.row.label}: {line.row.needs_launches} launches a cell would separate it from the best" for line in need
    ]
    return lines


def _unranked(model: Model, wide: int) -> str:
    if not model.unranked:
        return ""
    lines = ["not ranked"]
    for item in model.unranked:
        lines += _reason(item, wide)
    return "\n".join(lines)


def _reason(item: Unranked, wide: int) -> list[str]:
    took = f", after {item.elapsed_s:.0f} s" if item.elapsed_s else ""
    lines = [f"  {item.outcome:<5} {item.label}   in {item.phase}{took}: {item.cause}"]
    for name, value in (("why", item.means), ("line", item.line), ("log", item.evidence), ("try", item.try_)):
        if value:
            indent = " " * 14
            lines += textwrap.wrap(
                value,
                wide,
                initial_indent=f"        {name:<6}",
                subsequent_indent=indent,
                break_long_words=False,
                max_lines=3,
                placeholder=" ...",
            )
    return lines


def _findings(model: Model, wide: int) -> str:
    if not model.findings:
        return ""
    lines = ["findings"]
    for finding in model.findings[:MAX_FINDINGS]:
        lines += textwrap.wrap(finding, wide, initial_indent="  ", subsequent_indent="    ")
    if len(model.findings) > MAX_FINDINGS:
        lines.append(f"  ... {len(model.findings) - MAX_FINDINGS} more: sweeper report {model.run_id} --format json")
    return "\n".join(lines)


def _notes(model: Model, wide: int) -> str:
    lines = [line for note in model.notes for line in textwrap.wrap(note, wide)]
    if model.pending:
        lines.append(f"{model.pending} cells not tried yet: sweeper run MATRIX --resume {model.run_id}")
    return "\n".join(lines)


def markdown(model: Model) -> str:
    """Paste-ready."""
    parts = [
        f"## {model.title or model.run_id}",
        "Same in all cells: " + ", ".join(f"{k} `{v}`" for k, v in model.same.items()),
    ]
    for table in model.tables:
        chosen = columns(model, table)
        rows = [[_escape(value) for value in cells_of(line, chosen)] for line in table.lines]
        body = tabulate(rows, headers=[name for name, _ in chosen], tablefmt="pipe", disable_numparse=True)
        parts += [f"### {_title(table)}", body, *_legend(table)]
    if model.unranked:
        rows = [
            [item.label, item.outcome, item.phase, item.cause, _escape(item.means)[:160], item.evidence or DASH]
            for item in model.unranked
        ]
        headers = ["cell", "outcome", "phase", "cause", "why", "evidence"]
        parts += ["### Not ranked", tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)]
    if model.findings:
        parts += ["### Findings", "\n".join(f"- {_escape(finding)}" for finding in model.findings)]
    parts += list(model.notes)
    return "\n\n".join(parts) + "\n"


def _escape(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())
