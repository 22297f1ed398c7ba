"""Places: ties, provisional rows, Holm, and how often a winner is called where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from sweeper.core.rank import rank
from sweeper.core.verdicts import RankedRow


def ranked(samples: Mapping[str, Sequence[float]]) -> tuple[RankedRow, ...]:
    return rank(samples, labels={"a": "marlin tp4"}, workload="decode", concurrency=8)


def test_clear_cells_get_their_places() -> None:
    rows = ranked({"b": [40.0, 40.2, 40.1], "a": [50.0, 50.3, 50.1], "c": [30.0, 30.1, 30.2]})
    assert [(r.cell_id, r.place, r.tied, r.provisional) for r in rows] == [
        ("a", 1, False, False),
        ("b", 2, False, False),
        ("c", 3, False, False),
    ]
    assert [r.label for r in rows] == ["marlin tp4", "b", "c"]
    assert {(r.workload, r.concurrency) for r in rows} == {("decode", 8)}
    assert rows[0].ratio_to_best == 1.0
    assert rows[0].ratio_interval is None
    assert rows[1].ratio_interval is not None
    assert rows[1].ratio_interval.high < 1


def test_cells_that_are_not_separated_share_a_place_and_the_next_place_counts_them() -> None:
    rows = ranked({"a": [50.0, 53.0, 47.0], "b": [49.0, 45.0, 51.0], "c": [20.0, 20.1, 20.2]})
    assert [(r.cell_id, r.place, r.tied) for r in rows] == [("a", 1, True), ("b", 1, True), ("c", 3, False)]


def test_a_difference_inside_the_noise_is_a_tie_however_certain() -> None:
    rows = ranked({"a": [101.0, 101.01, 101.02], "b": [100.0, 100.01, 100.02]})
    assert [r.place for r in rows] == [1, 1]
    assert rows[1].needs_launches is None


def test_one_launch_is_provisional_and_placed_by_the_noise_threshold() -> None:
    rows = ranked({"a": [50.0], "b": [49.5], "c": [40.0]})
    assert [(r.cell_id, r.place, r.provisional) for r in rows] == [("a", 1, True), ("b", 1, True), ("c", 3, True)]
    assert all(r.interval is None and r.ratio_interval is None and r.needs_launches is None for r in rows)


def test_a_tie_says_how_many_launches_would_settle_it() -> None:
    rows = ranked({"a": [50.0, 52.0], "b": [47.0, 48.5]})
    assert rows[1].place == 1
    assert rows[1].needs_launches is not None
    assert rows[1].needs_launches > 2


def test_cells_without_a_launch_and_empty_input() -> None:
    assert ranked({}) == ()
    assert [r.cell_id for r in ranked({"a": [], "b": [3.0]})] == ["b"]


def test_a_dead_cell_is_ranked_last_and_not_dropped() -> None:
    rows = ranked({"a": [50.0, 50.1], "dead": [0.0, 0.0]})
    assert [(r.cell_id, r.place, r.decode_tok_s) for r in rows] == [("a", 1, 50.05), ("dead", 2, 0.0)]


def test_order_of_input_does_not_matter() -> None:
    samples = {"a": [50.0, 51.0], "b": [50.0, 51.0], "c": [10.0, 10.1]}
    assert ranked(samples) == ranked(dict(reversed(list(samples.items()))))


@pytest.mark.parametrize(("cells", "launches", "cv"), [(2, 2, 0.04), (2, 3, 0.01), (2, 5, 0.04), (6, 3, 0.04)])
def test_equal_cells_get_a_sole_winner_in_less_than_five_percent(cells: int, launches: int, cv: float) -> None:
    rng = np.random.default_rng(7)
    trials, wrong = (500 if cells == 2 else 120), 0
    for _ in range(trials):
        samples = {f"c{i}": list(100 * np.exp(rng.normal(0, cv, launches))) for i in range(cells)}
        wrong += not ranked(samples)[0].tied
    assert wrong / trials < 0.05


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(200):
        samples = {name: list(m * np.exp(rng.normal(0, 0.01, 4))) for name, m in (("a", 108), ("b", 100), ("c", 98))}
        top = ranked(samples)[0]
        found += top.cell_id == "a" and not top.tied
    assert found / 200 > 0.95
