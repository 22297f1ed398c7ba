"""The report for a terminal and as Markdown, from one table model."""

from __future__ import annotations

import re
import shutil
import textwrap

from tabulate import tabulate

from sweeper.report.columns import FIGURES, RIGHT, Column, cells_of, columns, heading, legend, remarks
from sweeper.report.model import DASH, Model, Table, Unranked, host_line

MAX_FINDINGS = 12
MAX_REASON_LINES = 4
MAX_MARKDOWN = 240
LABEL_SHARE = 0.33
"""Of the width: the widest a cell's label may be before it is wrapped."""
MIN_LABEL = 26
NARROWEST_LABEL = 10
"""Where only place, cell and rate are left and the terminal is narrower still."""
NARROWEST = 24
"""Below that the indented reasons have no room for a word."""
HEADER = 9
"""Characters of a heading before it takes a second line."""
_LOG_HEAD = re.compile(
    r"^(?:\([^()]*pid=\d+\)\s*)*"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+\d\d-\d\d \d\d:\d\d:\d\d\s+\[[^\]]*\]\s*"
    r"|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\]\s*)?"
)
"""Process, level, time and source file, as vLLM and SGLang write them."""


def text(model: Model, *, width: int | None = None) -> str:
    """Plain text that fits `width` columns; where the table is wider, columns are left out and named below it."""
    wide = max(NARROWEST, width or shutil.get_terminal_size((100, 24)).columns)
    parts = [_head(model, wide)]
    parts += [_table(model, table, wide) for table in model.tables]
    if not model.tables:
        parts.append("No cell passed; nothing is ranked.")
    parts += [_unranked(model, wide), _findings(model, wide), "\n".join(_wrapped(remarks(model), wide))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(model: Model, wide: int) -> str:
    same = " · ".join(f"{key} {value}" for key, value in model.same.items() if key not in ("env", "args", "DP"))
    host = host_line(model.host)
    lines = [model.title or model.run_id, f"host: {host}" if host else "", f"same in all cells: {same}" if same else ""]
    rows = _wrapped(lines, wide)
    # A run id is there to be copied: never broken.
    return "\n".join([rows[0], f"run {model.run_id}", *rows[1:]])


def _table(model: Model, table: Table, wide: int) -> str:
    chosen = columns(model, table)
    label = max(MIN_LABEL, int(LABEL_SHARE * wide))
    dropped: list[str] = []
    while max(map(len, (body := _body(table, chosen, label)).splitlines())) > wide:
        victim = _victim([name for name, _ in chosen], model)
        if victim is not None:
            dropped.append(chosen.pop(victim)[0])
        elif label > NARROWEST_LABEL:
            label -= 1
        else:
            break
    below = legend(table)
    # What varies is in the label already.
    hidden = [name for name in dropped if name not in model.varying]
    if hidden:
        below.append(f"not shown at this width: {', '.join(hidden)} (--format csv has them)")
    return "\n".join([*_wrapped([heading(table)], wide), body, *_wrapped(below, wide)])


def _body(table: Table, chosen: list[Column], label: int) -> str:
    """A long label takes a second line before it costs the table a figure."""
    names = [name for name, _ in chosen]
    return tabulate(
        [cells_of(line, chosen) for line in table.lines],
        headers=names,
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if name in RIGHT else "left" for name in names],
        maxcolwidths=[label if name == "cell" else None for name in names],
        maxheadercolwidths=HEADER,
    )


def _wrapped(lines: list[str], wide: int) -> list[str]:
    return [row for line in lines for row in textwrap.wrap(line, wide, break_on_hyphens=False)]


def _victim(names: list[str], model: Model) -> int | None:
    """Which column goes first: what the label says already, then figures from the right; the rate stays."""
    varying = [i for i, name in enumerate(names) if name in model.varying]
    if varying:
        return varying[0]
    figures = {name for name, _ in FIGURES}
    ran = {name for name in names if name.endswith(" ran")}
    for group in (figures, {"launches"}, {"vs best"}, ran):
        found = [i for i, name in enumerate(names) if name in group]
        if found:
            return found[-1]
    return None


def _unranked(model: Model, wide: int) -> str:
    if not model.unranked:
        return ""
    lines = ["not ranked"]
    for item in model.unranked:
        lines += _reason(item, wide)
    launched = [item for item in model.unranked if item.evidence]
    if launched:
        more = f"everything about one: sweeper show {launched[0].cell_id} --run {model.run_id}"
        lines += textwrap.wrap(more, wide, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines)


def _reason(item: Unranked, wide: int) -> list[str]:
    took = f", after {item.elapsed_s:.0f} s" if item.elapsed_s else ""
    head = f"  {item.outcome:<5} {item.label}   in {item.phase}{took}: {item.cause}"
    lines = (
        [head] if len(head) <= wide else textwrap.wrap(head, wide, subsequent_indent=" " * 8, break_on_hyphens=False)
    )
    proof = _LOG_HEAD.sub("", item.line) or item.line
    for name, value in (("why", item.means), ("line", proof), ("log", item.evidence), ("try", item.try_)):
        if value:
            lines += textwrap.wrap(
                value,
                wide,
                initial_indent=f"        {name:<6}",
                subsequent_indent=" " * 14,
                break_long_words=name != "log",
                break_on_hyphens=False,
                max_lines=MAX_REASON_LINES,
                placeholder=" ...",
            )
    return lines


def _findings(model: Model, wide: int) -> str:
    if not model.findings:
        return ""
    lines = ["findings"]
    for finding in model.findings[:MAX_FINDINGS]:
        lines += textwrap.wrap(finding, wide, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    if len(model.findings) > MAX_FINDINGS:
        more = f"... {len(model.findings) - MAX_FINDINGS} more: sweeper report {model.run_id} --format json"
        lines += textwrap.wrap(more, wide, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines)


def markdown(model: Model) -> str:
    """Paste-ready: what logs and matrices say is escaped."""
    host = host_line(model.host)
    parts = [
        f"## {_escape(model.title or model.run_id)}",
        f"Run `{model.run_id}`" + (f" on {_escape(host)}" if host else ""),
        "Same in all cells: " + ", ".join(f"{k} {_code(v)}" for k, v in model.same.items()) if model.same else "",
    ]
    for table in model.tables:
        chosen = columns(model, table)
        names = [name for name, _ in chosen]
        rows = [[_escape(value) for value in cells_of(line, chosen)] for line in table.lines]
        align = ["right" if name in RIGHT else "left" for name in names]
        body = tabulate(rows, headers=names, tablefmt="pipe", disable_numparse=True, colalign=align)
        parts += [f"### {_escape(heading(table))}", body, *map(_escape, legend(table))]
    if not model.tables:
        parts.append("No cell passed; nothing is ranked.")
    if model.unranked:
        headers = ["cell", "outcome", "phase", "cause", "why", "line", "log"]
        body = tabulate([_reason_row(item) for item in model.unranked], headers, tablefmt="pipe", disable_numparse=True)
        parts += ["### Not ranked", body]
    if model.findings:
        parts += ["### Findings", "\n".join(f"- {_escape(finding)}" for finding in model.findings)]
    parts += [_escape(remark) for remark in remarks(model)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reason_row(item: Unranked) -> list[str]:
    why, line = (textwrap.shorten(text, MAX_MARKDOWN, placeholder=" ...") for text in (item.means, item.line))
    cells = [item.label, item.outcome, item.phase, item.cause, why or DASH]
    return [*map(_escape, cells), _code(line) if line else DASH, _escape(item.evidence or DASH)]


def _escape(value: str) -> str:
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())


def _code(value: str) -> str:
    """As a code span; what would end it is replaced."""
    text = " ".join(value.replace("|", "\\|").replace("`", "'").split())
    return f"`{text}`"
