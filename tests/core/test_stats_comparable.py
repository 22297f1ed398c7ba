"""Unlike things are not averaged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.core.comparable import Conditions, NotComparable, Trial, aggregate, compare_runs, differences

SAME = Conditions(
    workload="decode c=8", image_digest="sha256:aa", engine_version="0.32.0", gpu="NVIDIA H200", driver="575.51"
)


def trials(*values: float, conditions: Conditions = SAME) -> list[Trial]:
    return [Trial(trial=f"t{n}", value=value, conditions=conditions) for n, value in enumerate(values)]


def test_launches_under_equal_conditions_are_averaged() -> None:
    assert aggregate(trials(50.0, 52.0)).mean == 51.0


@pytest.mark.parametrize("field", ["workload", "image_digest", "engine_version", "gpu", "driver"])
def test_a_difference_in_any_condition_refuses_the_average(field: str) -> None:
    other = replace(SAME, **{field: "another"})
    with pytest.raises(NotComparable, match="another") as raised:
        aggregate([*trials(50.0), *trials(50.0, conditions=other)])
    assert raised.value.field == field
    assert raised.value.hint


def test_an_unrecorded_condition_contradicts_nothing() -> None:
    assert aggregate([*trials(50.0), *trials(52.0, conditions=replace(SAME, driver=None))]).n == 2
    assert differences(SAME, Conditions()) == ()


def test_every_pair_is_held_against_each_other() -> None:
    unknown, other = replace(SAME, gpu=None), replace(SAME, gpu="NVIDIA B200")
    mixed = [*trials(1.0, conditions=unknown), *trials(1.0), *trials(1.0, conditions=other)]
    with pytest.raises(NotComparable, match="gpu"):
        aggregate(mixed)


def test_no_launch_is_an_error() -> None:
    with pytest.raises(ValueError, match="no launches"):
        aggregate([])


def test_runs_under_different_conditions_are_compared_and_told() -> None:
    newer = replace(SAME, driver="580.10")
    (change,) = compare_runs(
        {("c", "w"): trials(50.0, 50.2, 50.1)},
        {("c", "w"): trials(60.0, 60.1, 60.2, conditions=newer), ("d", "w"): trials(1.0)},
        labels={"c": "marlin"},
    )
    assert (change.verdict, change.label) == ("faster", "marlin")
    assert change.conditions == ("driver 575.51 -> 580.10",)


def test_many_cells_are_tested_together() -> None:
    one = {("c0", "w"): (trials(100.0, 101.0, 99.5), trials(104.0, 105.2, 103.5))}
    many = one | {(f"c{n}", "w"): (trials(100.0, 102.0, 98.0), trials(100.5, 101.5, 98.4)) for n in range(1, 30)}

    def p(pairs: dict[tuple[str, str], tuple[list[Trial], list[Trial]]]) -> float:
        found = compare_runs({k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()}, labels={})
        return next(c.p or 0.0 for c in found if c.cell_id == "c0")

    assert p(many) == pytest.approx(min(1.0, 30 * p(one)))
