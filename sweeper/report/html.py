"""One self-contained HTML page: no script, no network, readable when printed."""

from __future__ import annotations

from html import escape

from sweeper.report.columns import cells_of, columns
from sweeper.report.model import Model, Table

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
th{font-weight:600;background:#f6f8fa}tr.best td{background:#eaf6ec}
.wrap{overflow-x:auto}.bar{background:#2f7d4f;height:.6rem;display:block;min-width:1px}
.fail{color:#a40e26;font-weight:600}.muted{color:#59636e}code{font-size:.9em;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th{background:#161b22}
th,td{border-color:#30363d}tr.best td{background:#12261a}.fail{color:#ff7b72}.muted{color:#9198a1}}
"""


def html(model: Model) -> str:
    """The report as a page; everything from logs and matrices is escaped."""
    same = ", ".join(f"{escape(key)} <code>{escape(value)}</code>" for key, value in model.same.items())
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{escape(model.title or model.run_id)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(model.title or model.run_id)}</h1><p class='muted'>run {escape(model.run_id)}</p>",
        f"<p>Same in all cells: {same}</p>" if same else "",
        f"<p>Host: {escape(str(model.host.get('summary', '')))}</p>" if model.host.get("summary") else "",
    ]
    parts += [_table(model, table) for table in model.tables]
    if not model.tables:
        parts.append("<p>No cell passed; nothing is ranked.</p>")
    parts += [_unranked(model), _list("Findings", model.findings), _list("Notes", model.notes)]
    return "\n".join(part for part in parts if part) + "\n</body></html>\n"


def _table(model: Model, table: Table) -> str:
    chosen = columns(model, table)
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in chosen) + "<th>share of best</th>"
    rows = []
    for line in table.lines:
        cells = "".join(f"<td>{escape(value)}</td>" for value in cells_of(line, chosen))
        share = max(0.0, min(100.0, 100 * line.row.ratio_to_best))
        best = " class='best'" if line.row.place == 1 else ""
        rows.append(
            f"<tr{best}>{cells}<td style='width:9rem'><span class='bar' style='width:{share:.0f}%'></span></td></tr>"
        )
    title = f"{table.workload} at concurrency {table.concurrency}, ISL {table.isl or '-'}, OSL {table.osl or '-'}"
    return f"<h2>{escape(title)}</h2><div class='wrap'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _unranked(model: Model) -> str:
    if not model.unranked:
        return ""
    rows = []
    for item in model.unranked:
        proof = f"<br><code>{escape(item.line[:300])}</code>" if item.line else ""
        place = f"<br><span class='muted'>{escape(item.evidence)}</span>" if item.evidence else ""
        rows.append(
            f"<tr><td>{escape(item.label)}</td><td class='fail'>{escape(item.outcome)}</td>"
            f"<td>{escape(item.phase)}</td><td>{escape(item.cause)}</td><td>{escape(item.means)}{proof}{place}</td></tr>"
        )
    head = "<tr><th>cell</th><th>outcome</th><th>phase</th><th>cause</th><th>why</th></tr>"
    return f"<h2>Not ranked</h2><div class='wrap'><table>{head}{''.join(rows)}</table></div>"


def _list(title: str, items: tuple[str, ...]) -> str:
    if not items:
        return ""
    return f"<h2>{title}</h2><ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
