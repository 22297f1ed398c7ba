"""Accuracy figures: intervals and tests that call noise noise."""

from __future__ import annotations

import pytest

from sweeper.core.accuracy import (
    compare_paired,
    compare_totals,
    mcnemar,
    questions_needed,
    relative_score,
    same_number,
    wilson,
)


def test_wilson_matches_the_published_worked_example() -> None:
    # Newcombe (1998), Table I: 81 of 263 gives 0.2553 to 0.3662.
    found = wilson(81, 263)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_an_interval_stays_inside_zero_and_one_and_needs_questions() -> None:
    none, every = wilson(0, 40), wilson(40, 40)
    assert none is not None and every is not None
    assert none.low == 0 and every.high == 1 and none.high > 0.05 and every.low < 0.95
    assert wilson(0, 0) is None
    with pytest.raises(ValueError):
        wilson(41, 40)


def test_exact_mcnemar_is_the_sign_test_on_discordant_pairs() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(3, 3) == 1.0


def test_a_livebench_difference_of_a_fraction_of_a_point_is_noise() -> None:
    # 1,000 questions: BF16 0.278556, FP8 0.268326, NVFP4 0.279269; and the claimed +0.26 points.
    for right in (279.269, 268.326, 278.556 + 2.6):
        found = compare_totals(278.556, 1000, right, 1000)
        assert found is not None
        assert found.finding == "no difference shown"
        assert found.p is not None and found.p > 0.5


def test_paired_plus_a_quarter_of_a_point_is_noise_and_plus_five_points_is_not() -> None:
    reference = {f"q{i}": float(i < 278) for i in range(1000)}
    slightly = {**reference, **{f"q{i}": 0.0 for i in range(30)}, **{f"q{i}": 1.0 for i in range(300, 333)}}
    found = compare_paired(reference, slightly)
    assert found is not None
    assert found.points == pytest.approx(0.3)
    assert (found.only_reference, found.only_candidate) == (30, 33)
    assert found.finding == "no difference shown"
    clearly = {**reference, **{f"q{i}": 1.0 for i in range(300, 350)}}
    better = compare_paired(reference, clearly)
    assert better is not None
    assert better.finding == "higher"


def test_thirty_four_against_thirty_five_of_forty_is_noise() -> None:
    bf16 = {f"q{i}": float(i < 35) for i in range(40)}
    nvfp4 = {f"q{i}": float(i < 34) for i in range(40)}
    found = compare_paired(bf16, nvfp4)
    assert found is not None
    assert found.finding == "no difference shown" and found.p == 1.0


def test_fractional_scores_are_compared_by_the_paired_t_test() -> None:
    a = {f"q{i}": 0.5 for i in range(50)}
    b = {f"q{i}": 0.5 + (0.2 if i % 2 else 0.1) for i in range(50)}
    found = compare_paired(a, b)
    assert found is not None
    assert found.test == "paired t" and found.finding == "higher"


def test_sides_without_a_common_question_are_not_compared() -> None:
    assert compare_paired({"a": 1.0}, {"b": 1.0}) is None
    assert compare_totals(1, 1, 0, 0) is None


def test_relative_scores_reproduce_the_published_perplexity_table() -> None:
    assert round(relative_score(1.491422, 1.481134), 2) == 99.31
    assert round(relative_score(1.504343, 1.481134), 2) == 98.46


def test_a_quarter_of_a_point_would_need_hundreds_of_thousands_of_questions() -> None:
    assert questions_needed(0.278, 0.26) > 400_000


@pytest.mark.parametrize(
    ("said", "wanted", "right"),
    [
        ("52 euros", "52", True),
        ("2,048", "2048", True),
        ("12.50 %", "12.5", True),
        ("52 or 53", "52", False),
        ("-", "1", False),
    ],
)
def test_numbers_are_compared_as_numbers(said: str, wanted: str, right: bool) -> None:
    assert same_number(said, wanted) is right
