"""Markdown, CSV, JSON and HTML of one report."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

from report import runs

from sweeper.report.export import as_csv, as_json
from sweeper.report.html import html
from sweeper.report.text import markdown


def test_a_pipe_in_a_label_or_a_log_line_does_not_break_a_markdown_table() -> None:
    cell = replace(runs.BROKEN, name="cutlass bound to 0-15|16-31")
    shown = markdown(runs.model({cell: [runs.failed(cell)]}))
    row = next(line for line in shown.splitlines() if "cutlass-tma-ws-init" in line)
    assert r"0-15\|16-31" in row
    assert len(re.split(r"(?<!\\)\|", row)) == 9, "seven cells between eight bars"
    assert "<b>cutlass</b>" in row.split("`")[1], "a code span shows what it holds"


def test_markdown_escapes_tags_outside_code() -> None:
    shown = markdown(runs.model({runs.AUTO: []}, title="<script>x</script>", notes=["a <unk> token"]))
    assert "<script>" not in shown
    assert "a &lt;unk> token" in shown


def test_markdown_says_when_nothing_is_ranked_and_what_is_left() -> None:
    shown = markdown(runs.model({runs.AUTO: [], runs.BROKEN: [runs.failed(runs.BROKEN)]}))
    assert "No cell passed; nothing is ranked." in shown
    assert "1 cell not tried yet" in shown


def test_csv_can_be_read_back_with_every_cell_and_empty_for_unknown() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(runs.mixed()))))
    assert [row["outcome"] for row in rows] == ["PASS", "PASS", "FAIL", "SKIP"]
    best, second, broken, excluded = rows
    assert (float(best["decode_tok_s"]), best["place"], best["moe_backend_effective"]) == (872.4, "1", "triton")
    assert (best["acceptance_length"], second["acceptance_length"]) == ("", "2.2")
    assert (best["interval_low"], best["serving_tok_s"]) == ("", "")
    assert broken["label"] == runs.BROKEN.label()
    assert broken["evidence"] == "trials/x-1/server.log:61"
    assert excluded["decode_tok_s"] == ""


def test_a_measured_zero_is_a_zero_in_csv() -> None:
    model = runs.model({runs.AUTO: [runs.passed(runs.AUTO, runs.point(0.0))]})
    assert next(csv.DictReader(io.StringIO(as_csv(model))))["decode_tok_s"] == "0.0"


def test_json_has_the_whole_log_line_and_null_for_unknown() -> None:
    shown = json.loads(as_json(runs.mixed()))
    assert shown["schema"] == 1
    assert shown["unranked"][0]["line"] == runs.LINE
    first = shown["ranking"][0]
    assert (first["requested"]["MoE backend"], first["effective"]["MoE backend"]) == ("auto", "triton")
    assert first["interval"] is None
    assert first["points"][0]["serving_tok_s"] is None


class Page(HTMLParser):
    """Tags that were opened, whether they were closed in order, and what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.fetched: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [], "every tag is closed"
    return page


def test_html_is_whole_and_fetches_nothing() -> None:
    page = read(html(runs.mixed()))
    assert page.seen.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert page.fetched == []
    assert "url(" not in html(runs.mixed())
    assert "@import" not in html(runs.mixed())


def test_html_shows_log_lines_as_text() -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    cause = replace(runs.CAUSE, line=evil, means=evil, try_=evil, log=evil, id=evil)
    cell = replace(runs.BROKEN, name=evil)
    model = runs.model(
        {cell: [runs.failed(cell, cause)], runs.AUTO: [runs.passed(runs.AUTO, runs.point(9.0))]},
        title=evil,
        host={"cpu": evil, "gpus": [{"name": evil}]},
        notes=[evil],
    )
    page = read(html(model))
    assert page.seen.isdisjoint({"script", "img"})
    assert "".join(page.said).count(evil) >= 7


def test_html_has_rate_cause_line_hint_and_what_the_marks_mean() -> None:
    said = " ".join(" ".join(read(html(runs.mixed())).said).split())
    for part in ("872", "cutlass-tma-ws-init", runs.LINE, "Try: --moe-backend marlin", "? one launch", "AMD EPYC"):
        assert part in said


def test_exact_counts_and_counts_at_the_end_of_a_stream_get_tables_of_their_own() -> None:
    made = runs.model(
        {
            runs.AUTO: [runs.passed(runs.AUTO, runs.point(90.0))],
            runs.MARLIN: [runs.passed(runs.MARLIN, runs.point(100.0, tokens_source="final_usage"))],
        }
    )
    assert [[line.row.place for line in table.lines] for table in made.tables] == [[1], [1]]
    assert any("ranked only among cells counted the same way" in finding for finding in made.findings)
