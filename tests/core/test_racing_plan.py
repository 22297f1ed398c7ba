"""The planner of launches: who is screened, who is repeated, in which order, and what it finds for what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from sweeper.core.racing import Race, confirmed, drift, next_launches, next_launches_of_tables
from sweeper.core.rank import rank

ORDER = ["a", "b", "c", "d"]


def test_every_cell_is_screened_once_in_order() -> None:
    assert next_launches({}, order=ORDER, race=Race()) == ("a", "b", "c", "d")
    assert next_launches({"a": [1.0], "b": [2.0]}, order=ORDER, race=Race()) == ("c", "d")


def test_one_launch_asked_is_one_launch_given() -> None:
    assert next_launches({cell: [5.0] for cell in ORDER}, order=ORDER, race=Race(launches=1)) == ()


def test_clear_losers_get_no_repeat() -> None:
    samples = {"a": [100.0], "b": [99.0], "c": [50.0], "d": [20.0]}
    assert set(next_launches(samples, order=ORDER, race=Race())) == {"a", "b"}


def test_rounds_alternate_their_order() -> None:
    samples = {"a": [100.0], "b": [99.0], "c": [50.0], "d": [20.0]}
    first = next_launches(samples, order=ORDER, race=Race())
    second = next_launches({**samples, "a": [100.0, 99.5], "b": [99.0, 100.0]}, order=ORDER, race=Race())
    assert first == ("a", "b")
    assert second == ("b", "a")


def test_a_sole_contender_is_measured_again_and_then_it_ends() -> None:
    samples: dict[str, list[float]] = {"a": [100.0], "b": [60.0], "c": [50.0], "d": [20.0]}
    assert next_launches(samples, order=ORDER, race=Race()) == ("a",)
    samples["a"] += [99.0, 99.5]
    assert next_launches(samples, order=ORDER, race=Race()) == ()


def test_confirmed_leaders_get_two_fresh_launches_even_when_they_are_far_apart() -> None:
    samples: dict[str, list[float]] = {"a": [100.0], "b": [60.0], "c": [50.0], "d": [20.0]}
    race = Race(launches=1, confirm_top=2)
    for _ in range(2):
        batch = next_launches(samples, order=ORDER, race=race)
        assert set(batch) == {"a", "b"}
        for cell in batch:
            samples[cell].append(samples[cell][0])
    assert next_launches(samples, order=ORDER, race=race) == ()


def test_the_reference_runs_in_every_repeat_round() -> None:
    samples = {"a": [100.0], "b": [99.0], "c": [50.0], "d": [20.0]}
    assert set(next_launches(samples, order=ORDER, race=Race(reference="d"))) == {"a", "b", "d"}


def test_failed_cells_are_never_launched_again() -> None:
    samples = {"a": [100.0], "b": [99.0], "c": [50.0]}
    assert "a" not in next_launches(samples, order=ORDER, race=Race(), failed={"a", "d"})
    assert next_launches({}, order=ORDER, race=Race(), failed=ORDER) == ()


def test_the_budget_is_kept_even_when_nothing_separates() -> None:
    rng = np.random.default_rng(0)
    order = [f"c{i}" for i in range(16)]
    samples: dict[str, list[float]] = {cell: [] for cell in order}
    while batch := next_launches(samples, order=order, race=Race(launches=3, reference="c3")):
        for cell in batch:
            samples[cell].append(float(100 * np.exp(rng.normal(0, 0.03))))
    assert sum(map(len, samples.values())) <= 24


def test_a_stated_budget_holds_but_never_cuts_the_screening() -> None:
    assert Race(budget=2).limit(4) == 4
    samples = {"a": [100.0], "b": [99.9], "c": [99.8], "d": [99.7]}
    assert len(next_launches(samples, order=ORDER, race=Race(budget=5))) == 1
    assert next_launches(samples, order=ORDER, race=Race(budget=4)) == ()


def test_screening_launches_do_not_count_for_the_chosen() -> None:
    assert confirmed({"a": [110.0, 100.0, 101.0], "b": [90.0, 91.0], "c": [50.0], "d": []}) == {
        "a": (100.0, 101.0),
        "b": (90.0, 91.0),
        "c": (50.0,),
    }


def test_equal_rounds_keep_every_launch() -> None:
    assert confirmed({"a": [3.0, 1.0, 2.0], "b": [1.0, 1.0, 1.0]})["a"] == (3.0, 1.0, 2.0)


def test_a_cell_wanted_by_one_workload_is_launched_for_all() -> None:
    decode = {"a": [100.0], "b": [50.0], "c": [40.0]}
    serving = {"a": [500.0], "b": [900.0], "c": [300.0]}
    batch = next_launches_of_tables([decode, serving], order=["a", "b", "c"], race=Race())
    assert set(batch) == {"a", "b"}


def test_dead_cells_do_not_break_the_race() -> None:
    assert set(next_launches({"a": [0.0], "b": [0.0]}, order=["a", "b"], race=Race())) <= {"a", "b"}


def _truth(rng: np.random.Generator, gap: float) -> dict[str, float]:
    values = [100.0, 100 * (1 - gap), *(100 * (1 - gap - 0.6 * rng.random(14)))]
    rng.shuffle(values)
    return {f"c{i:02d}": v for i, v in enumerate(values)}


def _raced(rng: np.random.Generator, truth: Mapping[str, float], cv: float) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {cell: [] for cell in truth}
    while batch := next_launches(samples, order=list(truth), race=Race(launches=3)):
        for cell in batch:
            samples[cell].append(float(truth[cell] * np.exp(rng.normal(0, cv))))
    return samples


def _best(samples: Mapping[str, Sequence[float]]) -> str:
    return max(samples, key=lambda cell: float(np.mean(samples[cell])))


@pytest.mark.parametrize(("gap", "cv"), [(0.02, 0.02), (0.03, 0.04), (0.05, 0.04)])
def test_racing_finds_the_best_of_sixteen_as_often_as_full_rounds_with_half_the_launches(gap: float, cv: float) -> None:
    rng = np.random.default_rng(11)
    trials, full, raced, most = 500, 0, 0, 0
    for _ in range(trials):
        truth = _truth(rng, gap)
        rounds = {cell: list(v * np.exp(rng.normal(0, cv, 3))) for cell, v in truth.items()}
        samples = _raced(rng, truth, cv)
        most = max(most, sum(map(len, samples.values())))
        full += truth[_best(rounds)] == 100.0
        raced += truth[_best(confirmed(samples))] == 100.0
    assert raced >= full
    assert most <= 24


def test_racing_two_equal_leaders_calls_a_winner_in_less_than_five_percent() -> None:
    rng = np.random.default_rng(12)
    wrong = 0
    for _ in range(300):
        samples = confirmed(_raced(rng, _truth(rng, 0.0), 0.03))
        wrong += not rank(samples, labels={}, workload="decode", concurrency=1)[0].tied
    assert wrong / 300 < 0.05


def test_drift_of_the_reference_is_seen() -> None:
    sinking = drift([100.0, 98.1, 96.0, 93.9, 92.1])
    assert sinking is not None
    assert sinking.drifted
    assert sinking.change == pytest.approx(-0.08, abs=0.01)
    assert "drifted: -8" in sinking.text or "drifted: -7" in sinking.text


def test_a_reference_that_scatters_has_not_drifted() -> None:
    steady = drift([100.0, 103.0, 98.0, 101.0])
    assert steady is not None
    assert not steady.drifted


def test_two_launches_need_a_larger_change_and_one_says_nothing() -> None:
    small, large = drift([100.0, 97.0]), drift([100.0, 95.0])
    assert small is not None
    assert large is not None
    assert (small.drifted, large.drifted, large.p) == (False, True, None)
    assert drift([100.0]) is None
    assert drift([100.0, 0.0]) is None
