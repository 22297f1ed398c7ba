"""Statistics over launches against scipy and against known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from sweeper.core import stats


def test_one_launch_has_no_spread() -> None:
    one = stats.describe([50.0])
    assert (one.mean, one.sd, one.cv, one.interval) == (50.0, None, None, None)


def test_interval_is_students() -> None:
    values = [100.0, 102.0, 104.0]
    low, high = sps.t.interval(0.95, 2, loc=102.0, scale=sps.sem(values))
    got = stats.describe(values).interval
    assert got is not None
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


def test_comparison_is_welch_on_logs() -> None:
    a, b = [100.0, 103.0, 101.0], [90.0, 97.0]
    reference = sps.ttest_ind(np.log(a), np.log(b), equal_var=False)
    got = stats.compare(a, b)
    assert got.p == pytest.approx(reference.pvalue)
    assert got.interval is not None
    ci = reference.confidence_interval(0.95)
    assert (math.log(got.interval.low), math.log(got.interval.high)) == (pytest.approx(ci.low), pytest.approx(ci.high))
    assert got.ratio == pytest.approx(np.mean(a) / np.mean(b))


def test_welch_interval_covers_the_true_ratio() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        a, b = 110 * np.exp(rng.normal(0, 0.03, 3)), 100 * np.exp(rng.normal(0, 0.005, 4))
        interval = stats.compare(list(a), list(b)).interval
        assert interval is not None
        hits += interval.low <= 1.1 <= interval.high
    assert hits / 600 > 0.93


def test_a_single_launch_gives_a_ratio_without_a_p() -> None:
    got = stats.compare([50.0], [40.0, 41.0])
    assert got.p is None
    assert got.interval is None
    assert got.ratio == pytest.approx(50 / 40.5)


def test_zero_rates_are_compared_and_not_dropped() -> None:
    assert stats.compare([0.0, 0.0], [0.0, 0.0]).p == 1.0
    dead = stats.compare([0.0, 0.0], [50.0, 51.0])
    assert dead.ratio == 0.0
    assert dead.interval is None
    assert stats.differs(dead)


def test_equal_launches_do_not_divide_by_zero() -> None:
    same = stats.compare([50.0, 50.0], [50.0, 50.0])
    assert same.p == pytest.approx(1.0)
    assert stats.differs(stats.compare([50.0, 50.0], [60.0, 60.0]))


def test_holm_matches_the_published_steps() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert stats.holm([]) == ()


def test_a_significant_difference_inside_the_noise_is_no_difference() -> None:
    close = stats.compare([100.0, 100.01, 100.02], [101.0, 101.01, 101.02])
    assert close.p is not None
    assert close.p < 0.001
    assert not stats.differs(close)


def test_launches_to_separate_reaches_its_power() -> None:
    a, b = [100.0, 103.0, 98.0], [95.0, 97.0, 92.0]
    n = stats.launches_to_separate(a, b)
    assert n is not None
    sd = [float(np.std(np.log(side), ddof=1)) for side in (a, b)]
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(400):
        x = np.exp(rng.normal(np.mean(np.log(a)), sd[0], n))
        y = np.exp(rng.normal(np.mean(np.log(b)), sd[1], n))
        p = stats.compare(list(x), list(y)).p
        found += p is not None and p < 0.05
    assert 0.75 < found / 400 < 0.95


@pytest.mark.parametrize(
    ("a", "b"),
    [([100.0], [90.0, 91.0]), ([100.0, 110.0], [101.0, 109.0]), ([0.0, 0.0], [1.0, 2.0])],
    ids=["one launch", "inside the noise", "zero rate"],
)
def test_launches_to_separate_is_unknown(a: list[float], b: list[float]) -> None:
    assert stats.launches_to_separate(a, b) is None


def test_outliers_are_named_by_position() -> None:
    assert stats.outliers([10.0, 10.1, 9.9, 10.05, 14.0]) == (4,)
    assert stats.outliers([10.0, 14.0]) == ()
    assert stats.outliers([10.0, 10.0, 10.0]) == ()
    assert stats.outliers([10.0, 10.0, 10.0, 10.0]) == ()
    assert stats.outliers([100.0, 100.0, 100.0, 50.0]) == (3,), "equal ones are no reason to overlook the other"
    assert stats.outliers([100.0, 100.1, 120.0]) == (), "of three one is always far from the other two"
    assert stats.outliers([100.0, 100.01, 100.02, 101.0]) == (), "within the noise threshold"


def test_a_window_is_held_against_itself_in_five_parts() -> None:
    assert stats.steadiness([100.0] * 9) is None
    assert stats.steadiness([0.0] * 20) is None
    level = stats.steadiness([100.0, 102.0] * 10)
    assert level is not None
    assert (level.steady, level.cv) == (True, 0.0)
    late = stats.steadiness([0.0] * 10 + [100.0] * 4)
    assert late is not None
    assert not late.steady
    throttled = stats.steadiness([100.0] * 12 + [70.0] * 8)
    assert throttled is not None
    assert throttled.parts == (100.0, 100.0, 100.0, 70.0, 70.0)
    assert not throttled.steady
