"""Figures and grades of measured log-probabilities."""

from __future__ import annotations

import math

import pytest

from sweeper.core.numerics import (
    MIN_GENERATIONS,
    Figures,
    Generation,
    Limits,
    Position,
    degenerate,
    figures,
    grade,
    kl_topk,
    went_own_way,
)

LIMITS = Limits(nll_shift=0.02, kl_topk=0.02, argmax_agreement=0.95)
TOP = ((1, -0.1), (2, -3.0), (3, -4.0))


def group(**changes: object) -> Figures:
    base = {
        "positions": 400, "nll_golden": 1.0, "nll_measured": 1.0, "kl_topk": 0.001, "argmax_agreement": 1.0,
        "nan": False,
    }  # fmt: skip
    return Figures(**{**base, **changes})  # type: ignore[arg-type]


def test_kl_of_equal_lists_is_zero_and_of_a_lost_candidate_is_not() -> None:
    assert kl_topk(TOP, TOP) == pytest.approx(0)
    assert kl_topk(TOP, TOP[1:]) > 1


def test_candidates_beyond_the_end_of_a_list_count_as_its_end() -> None:
    flat = tuple((token, -5.0 - 0.01 * token) for token in range(20))
    shifted = tuple((token, -5.0 - 0.01 * (token - 3)) for token in range(3, 23))
    assert kl_topk(flat, shifted) < 0.01
    assert kl_topk(flat, (*shifted, (900, -15.0))) < 0.01


def test_a_list_of_one_leaves_the_rest_what_it_leaves() -> None:
    assert kl_topk(((1, -0.1), (2, -2.4)), ((1, -0.1),)) < 0.01
    assert kl_topk(((1, -0.7), (2, -0.7)), ((1, -1e-12),)) > 5


def test_figures_are_means_over_the_positions_that_were_measured() -> None:
    found = figures(
        [
            Position(golden=-1.0, measured=-1.5, golden_top=TOP, measured_top=TOP),
            Position(golden=-1.0, measured=-0.9, golden_top=TOP, measured_top=TOP),
            Position(golden=-9.0, measured=None),
        ]
    )
    assert found.positions == 2
    assert found.shift == pytest.approx(0.2)
    assert found.argmax_agreement == 1.0


def test_a_nan_is_reported_and_never_averaged() -> None:
    found = figures([Position(golden=-1.0, measured=math.nan), Position(golden=-1.0, measured=-1.0)])
    assert found.nan and found.positions == 1 and found.shift == 0
    assert grade({"prefill": found}, [], LIMITS).verdict == "garbage"


def test_near_ties_have_no_best_token_to_agree_on() -> None:
    tie = ((1, -0.70), (2, -0.72))
    found = figures([Position(golden=-0.7, measured=-0.7, golden_top=tie, measured_top=tie[::-1])])
    assert found.argmax_agreement is None


def test_the_typical_kl_leaves_routing_flips_out() -> None:
    far = ((2, -0.1), (1, -3.0), (3, -4.0))
    same = [Position(golden=-0.1, measured=-0.1, golden_top=TOP, measured_top=TOP) for _ in range(97)]
    flips = [Position(golden=-0.1, measured=-3.0, golden_top=TOP, measured_top=far) for _ in range(3)]
    found = figures([*same, *flips], typical=True)
    assert found.kl_topk is not None and found.kl_topk > 0.05
    assert found.kl_typical == pytest.approx(0)


def test_one_bad_batch_size_is_not_hidden_by_good_ones() -> None:
    check = grade({"decode batch 1": group(), "decode batch 8": group(nll_measured=1.05)}, [], LIMITS)
    assert check.verdict == "degraded"
    assert check.worst == "decode batch 8"
    assert "decode batch 8" in check.reasons[0]


def test_far_off_is_garbage_in_either_direction() -> None:
    assert grade({"p": group(nll_measured=2.0)}, [], LIMITS).verdict == "garbage"
    assert grade({"p": group(nll_measured=0.5)}, [], LIMITS).verdict == "garbage"


def test_a_typical_kl_above_its_bound_is_degraded_where_enough_positions_say_so() -> None:
    tight = Limits(nll_shift=0.02, kl_topk=0.02, argmax_agreement=0.95, kl_typical=1e-5)
    assert grade({"p": group(kl_typical=1e-4)}, [], tight).verdict == "degraded"
    assert grade({"p": group(kl_typical=1e-4, positions=50)}, [], tight).verdict == "right"


def test_nothing_compared_is_unchecked_never_right() -> None:
    assert grade({}, [], LIMITS).verdict == "unchecked"
    assert grade({"p": group(positions=0)}, [], LIMITS).verdict == "unchecked"


def test_requests_that_broke_on_the_server_are_never_right() -> None:
    check = grade({"p": group()}, [], LIMITS, faults=["3 of 9 requests failed: HTTP 500"])
    assert check.verdict == "degraded" and check.reasons


def test_collapse_is_seen_unless_golden_does_the_same() -> None:
    steady, varied = (7,) * 24, tuple(range(24))
    assert degenerate(Generation(ids=steady, golden_ids=varied))
    assert not degenerate(Generation(ids=steady, golden_ids=steady))
    assert not degenerate(Generation(ids=varied, golden_ids=varied))
    assert degenerate(Generation(ids=varied, problem="looping"))


def test_one_collapsed_generation_of_eighty_is_degraded_and_most_are_garbage() -> None:
    good, bad = Generation(ids=tuple(range(24))), Generation(ids=(1,) * 24)
    assert grade({}, [*[good] * 79, bad], None).verdict == "degraded"
    assert grade({}, [*[good] * 10, *[bad] * 30], None).verdict == "garbage"


def test_the_number_of_generations_sees_a_four_percent_failure() -> None:
    assert 1 - 0.96**MIN_GENERATIONS > 0.95 > 1 - 0.96 ** (MIN_GENERATIONS - 1)


def test_a_loop_entered_by_a_token_that_golden_holds_likely_is_no_collapse() -> None:
    likely, unlikely = ((5, -0.7), (9, -1.2)), ((5, -0.01), (9, -7.0))
    assert went_own_way((1, 9, 9), (1, 5, 6), [likely, likely, likely])
    assert not went_own_way((1, 9, 9), (1, 5, 6), [unlikely, unlikely, unlikely])
    assert not went_own_way((1, 5, 6), (1, 5, 6), [likely] * 3)
    assert not degenerate(Generation(ids=(1,) * 24, golden_ids=tuple(range(24)), problem="looping", own_way=True))
    assert degenerate(Generation(ids=(1,) * 24, own_way=True, nan=True))


def at(place: object, measured: float) -> Position:
    return Position(golden=-0.1, measured=measured, place=("case", place))  # type: ignore[arg-type]


def test_a_place_where_many_generations_leave_golden_counts_once() -> None:
    """Twelve repetitions that end at one near-tie made a mean of that place: 3 of 12 healthy servers were accused."""
    positions = [at(0, -6.1)] * 12 + [at(number, -0.1) for number in range(1, 60)]
    found = figures(positions)
    assert found.positions == 60
    assert found.shift == pytest.approx(6.0 / 60)


def test_over_few_places_one_flipped_expert_is_no_fault_and_a_shift_of_all_is() -> None:
    """Golden files of large geometries hold 16 decoded places."""
    limits = Limits(nll_shift=0.05, kl_topk=0.04, argmax_agreement=0.9)
    flipped = figures([at(number, -4.1 if number == 3 else -0.1) for number in range(16)])
    assert flipped.shift == pytest.approx(0.25)
    assert grade({"decode": flipped}, [], limits).verdict == "right"
    shifted = figures([at(number, -0.4 - 0.01 * number) for number in range(16)])
    assert grade({"decode": shifted}, [], limits).verdict == "degraded"
    many = figures([at(number, -4.1 if number % 16 == 3 else -0.1) for number in range(320)])
    assert grade({"decode": many}, [], limits).verdict == "degraded"
