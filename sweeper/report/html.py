"""One self-contained HTML page: no script, no network, readable when printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from sweeper.report.columns import RATES, RIGHT, cells_of, columns, heading, legend, remarks
from sweeper.report.model import Model, Table, host_line

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
th{font-weight:600;background:#f6f8fa}tr.best td{background:#eaf6ec}
.wrap{overflow-x:auto}
.bar{background:#2f7d4f;height:.3rem;display:block;min-width:1px;margin-left:auto;print-color-adjust:exact}
.figure{text-align:right}.rate{min-width:7rem}.why{min-width:18rem}
.fail{color:#a40e26;font-weight:600}.inconclusive,.aborted{color:#7d4e00}.muted{color:#59636e}code{font-size:.9em;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th{background:#161b22}
th,td{border-color:#30363d}tr.best td{background:#12261a}.fail{color:#ff7b72}.muted{color:#9198a1}
.inconclusive,.aborted{color:#d29922}}
"""


_BAR = re.compile(r"(?<!\\)\|")


def html(model: Model, layouts: str = "") -> str:
    """The report as a page; everything from logs and matrices is escaped. `layouts`: Markdown tables with titles."""
    same = ", ".join(f"{escape(key)} <code>{escape(value)}</code>" for key, value in model.same.items())
    host = host_line(model.host)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{escape(model.title or model.run_id)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(model.title or model.run_id)}</h1><p class='muted'>run {escape(model.run_id)}</p>",
        f"<p>Same in all cells: {same}</p>" if same else "",
        f"<p>Host: {escape(host)}</p>" if host else "",
    ]
    parts += [_table(model, table) for table in model.tables]
    if not model.tables:
        parts.append("<p>No cell passed; nothing is ranked.</p>")
    parts += [_unranked(model), _list("Findings", model.findings), _list("Notes", remarks(model)), _layouts(layouts)]
    return "\n".join(part for part in parts if part) + "\n</body></html>\n"


def _table(model: Model, table: Table) -> str:
    chosen = columns(model, table)
    names = [name for name, _ in chosen]
    head = "".join(f"<th{_side(name)}>{escape(name)}</th>" for name in names)
    rows = []
    for line in table.lines:
        share = max(0.0, min(100.0, 100 * line.row.ratio_to_best))
        bar = f"<span class='bar' style='width:{share:.0f}%'></span>"
        cells = "".join(
            f"<td{_side(name)}>{escape(value)}{bar if name in RATES else ''}</td>"
            for name, value in zip(names, cells_of(line, chosen), strict=True)
        )
        rows.append(f"<tr{' class=best' if line.row.place == 1 else ''}>{cells}</tr>")
    marks = "".join(f"<p class='muted'>{escape(line)}</p>" for line in legend(table))
    body = f"<div class='wrap'><table><tr>{head}</tr>{''.join(rows)}</table></div>"
    return f"<h2>{escape(heading(table))}</h2>{body}{marks}"


def _layouts(text: str) -> str:
    """Tables of publications: a title, rows between bars, and notes below them."""
    parts = []
    for block in (part.strip().splitlines() for part in text.split("\n\n")):
        if block and block[0].startswith("|"):
            head, _, *rows = [_BAR.split(line.strip()[1:-1]) for line in block]
            top = "".join(f"<th>{_plain(name)}</th>" for name in head)
            body = "".join("<tr>" + "".join(f"<td>{_plain(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            parts.append(f"<div class='wrap'><table><tr>{top}</tr>{body}</table></div>")
        else:
            notes = [line for line in block if line.startswith("Energy: ")]
            parts += [f"<p class='muted'>{escape(line)}</p>" for line in notes]
            parts += [f"<h2>{escape(line)}</h2>" for line in block if line and line not in notes]
    return "\n".join(parts)


def _plain(cell: str) -> str:
    return escape(cell.strip().replace("\\|", "|"))


def _side(name: str) -> str:
    kinds = [*(["figure"] if name in RIGHT else []), *(["rate"] if name in RATES else [])]
    return f" class='{' '.join(kinds)}'" if kinds else ""


def _unranked(model: Model) -> str:
    if not model.unranked:
        return ""
    rows = []
    for item in model.unranked:
        proof = f"<br><code>{escape(item.line[:300])}</code>" if item.line else ""
        place = f"<br><span class='muted'>{escape(item.evidence)}</span>" if item.evidence else ""
        hint = f"<br>Try: {escape(item.try_)}" if item.try_ else ""
        rows.append(
            f"<tr><td>{escape(item.label)}</td><td class='{item.outcome.lower()}'>{escape(item.outcome)}</td>"
            f"<td>{escape(item.phase)}</td><td>{escape(item.cause)}</td>"
            f"<td class='why'>{escape(item.means)}{proof}{place}{hint}</td></tr>"
        )
    head = "<tr><th>cell</th><th>outcome</th><th>phase</th><th>cause</th><th>why</th></tr>"
    return f"<h2>Not ranked</h2><div class='wrap'><table>{head}{''.join(rows)}</table></div>"


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h2>{title}</h2><ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
