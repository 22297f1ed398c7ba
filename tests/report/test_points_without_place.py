"""A ranked cell of which one point does not hold: the others keep their places, that one is named with its cause."""

from __future__ import annotations

import csv
import io
import json

import pytest
from report.runs import AUTO, MARLIN, model, passed, point

from sweeper.report.export import as_csv, as_json
from sweeper.report.html import html
from sweeper.report.model import Model
from sweeper.report.progress import _rate
from sweeper.report.text import markdown, text

WHY = "not sent: 28672 prompt and 128 output tokens exceed the served context of 16384 tokens"
BEYOND = point(None, 1, isl=28672, osl=128, tokens=None, invalid=(WHY,))
SPOILED = point(900.0, 64, invalid=("server counted 9 tokens, the client 12",))


def ladder() -> Model:
    return model({AUTO: [passed(AUTO, point(80.0, 1), SPOILED, BEYOND)], MARLIN: [passed(MARLIN, point(90.0, 1))]})


def test_the_points_that_hold_are_ranked_and_the_one_that_does_not_has_no_table() -> None:
    (table,) = ladder().tables
    assert [(line.row.place, line.row.decode_tok_s) for line in table.lines] == [(1, 90.0), (2, 80.0)]


def test_the_points_that_do_not_hold_are_named_with_cause_and_outcome() -> None:
    spoiled, beyond = ladder().unranked
    assert (spoiled.outcome, spoiled.cause, beyond.outcome) == ("INCONCLUSIVE", "window-invalid", "SKIP")
    assert "at 64" in spoiled.label
    assert "the client 12" in spoiled.means
    assert "ISL 28672" in beyond.label
    assert WHY in beyond.means
    assert not beyond.evidence


@pytest.mark.parametrize("form", [text, markdown, as_json, html])
def test_every_format_says_why_a_rung_is_missing(form: object) -> None:
    said = form(ladder())  # type: ignore[operator]
    assert "exceed the served context" in " ".join(said.split())


def test_csv_and_json_say_which_point_it_was() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(ladder()))))
    assert [(row["concurrency"], row["isl"], row["outcome"], row["decode_tok_s"]) for row in rows[2:]] == [
        ("64", "64", "INCONCLUSIVE", ""),
        ("1", "28672", "SKIP", ""),
    ]
    assert [item["isl"] for item in json.loads(as_json(ladder()))["unranked"]] == [64, 28672]


def test_a_point_that_holds_in_another_launch_is_ranked_on_that_launch() -> None:
    made = model({AUTO: [passed(AUTO, point(80.0, 64)), passed(AUTO, SPOILED, attempt=2)]})
    assert [(line.row.decode_tok_s, line.row.launches) for line in made.tables[0].lines] == [(80.0, 1)]
    assert made.unranked == ()


def test_the_line_of_a_finished_trial_gives_no_figure_for_a_point_that_does_not_hold() -> None:
    assert _rate(SPOILED) == "no valid figure at 64 (ISL 64)"
    assert _rate(BEYOND) == "not sent at 1 (ISL 28672)"
    assert _rate(point(0.0, 1, serving_tok_s=5.0)) == "0.00 tok/s at 1"
