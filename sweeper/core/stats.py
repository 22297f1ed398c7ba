"""Statistics over server launches.

The launch is the unit: windows inside one launch are correlated, so every function here takes one mean per launch.
Ratios are compared on the logarithm (run-to-run noise of a throughput is relative, not absolute) with Welch's test,
which does not assume equal spread: measured CVs on one machine reach from 0.2 % (no MTP) to 3.9 % (MTP, one stream).
A difference counts when it is significant and larger than the noise threshold; docs/statistics.md gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats as sps

from sweeper.core.verdicts import Interval

NOISE = 0.02
"""Smallest relative difference that is called a difference."""
ALPHA = 0.05
RELATIVE_SD_FLOOR = 1e-4
"""Two launches that agree to more digits than the clock resolves prove no smaller spread than this."""
MIN_FOR_OUTLIERS = 4
PARTS = 5
UNSTEADY_CV = 0.05
"""Spread of a window's parts from which a launch is called unsteady; a steady decode keeps under 2 %."""
MAX_LAUNCHES = 50
"""Above this, "needs N launches" is no advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchStats:
    """Mean over launches with its spread. `sd` with n - 1; None with one launch."""

    n: int
    mean: float
    sd: float | None
    cv: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """a against b. `ratio` = mean(a) / mean(b); `interval` and `p` None where a side has fewer than two launches."""

    ratio: float
    interval: Interval | None
    p: float | None


def describe(values: Sequence[float], *, level: float = 0.95) -> LaunchStats:
    """Mean, sample SD and Student interval of launch means. Raises ValueError on an empty sequence."""
    if not values:
        raise ValueError("no launches to describe")
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return LaunchStats(n=n, mean=mean, sd=None, cv=None, interval=None)
    sd = float(np.std(values, ddof=1))
    half = float(sps.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return LaunchStats(
        n=n,
        mean=mean,
        sd=sd,
        cv=sd / mean if mean else None,
        interval=Interval(low=mean - half, high=mean + half, level=level),
    )


def compare(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Comparison:
    """Ratio of launch means with Welch's interval on log ratios and its two-sided p.

    A rate of zero has no logarithm: then p comes from Welch's test on the rates and the interval is None.
    Raises ValueError when a side is empty.
    """
    if not a or not b:
        raise ValueError("a side of the comparison has no launches")
    mean_a, mean_b = float(np.mean(a)), float(np.mean(b))
    ratio = mean_a / mean_b if mean_b else (math.inf if mean_a else 1.0)
    if len(a) < 2 or len(b) < 2:
        return Comparison(ratio=ratio, interval=None, p=None)
    if min(*a, *b) <= 0:
        return Comparison(ratio=ratio, interval=None, p=_welch_linear(a, b))
    diff, se, df = _welch_logs(a, b)
    half = float(sps.t.ppf((1 + level) / 2, df)) * se
    return Comparison(
        ratio=ratio,
        interval=Interval(low=math.exp(diff - half), high=math.exp(diff + half), level=level),
        p=float(2 * sps.t.sf(abs(diff) / se, df)),
    )


def _welch_logs(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Difference of mean logs, its standard error, Welch-Satterthwaite degrees of freedom."""
    la, lb = np.log(a), np.log(b)
    va = max(float(np.var(la, ddof=1)), RELATIVE_SD_FLOOR**2) / len(la)
    vb = max(float(np.var(lb, ddof=1)), RELATIVE_SD_FLOOR**2) / len(lb)
    df = (va + vb) ** 2 / (va**2 / (len(la) - 1) + vb**2 / (len(lb) - 1))
    return float(la.mean() - lb.mean()), math.sqrt(va + vb), df


def _welch_linear(a: Sequence[float], b: Sequence[float]) -> float:
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return 1.0 if a[0] == b[0] else 0.0
    return float(sps.ttest_ind(a, b, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjustment, in the order given (Holm 1979); an adjusted p below alpha is a rejection."""
    m, running = len(p_values), 0.0
    adjusted = [0.0] * m
    for step, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - step) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def differs(comparison: Comparison, *, noise: float = NOISE, alpha: float = ALPHA, p: float | None = None) -> bool:
    """True when the difference is larger than the noise threshold and significant.

    `p` replaces the comparison's own (Holm). Without a p (one launch on a side) the threshold alone decides, and the
    caller must call the result provisional.
    """
    p = comparison.p if p is None else p
    return abs(comparison.ratio - 1) > noise and (p is None or p < alpha)


def launches_to_separate(
    a: Sequence[float], b: Sequence[float], *, noise: float = NOISE, alpha: float = ALPHA, power: float = 0.8
) -> int | None:
    """Launches per side with which Welch's test would find the difference now seen, with probability `power`.

    None: a side has one launch, the difference is inside the noise threshold, or more than MAX_LAUNCHES are needed.
    """
    if len(a) < 2 or len(b) < 2 or min(*a, *b) <= 0 or abs(np.mean(a) / np.mean(b) - 1) <= noise:
        return None
    la, lb = np.log(a), np.log(b)
    va = max(float(np.var(la, ddof=1)), RELATIVE_SD_FLOOR**2)
    vb = max(float(np.var(lb, ddof=1)), RELATIVE_SD_FLOOR**2)
    diff = abs(float(la.mean() - lb.mean()))
    for n in range(2, MAX_LAUNCHES + 1):
        df = (n - 1) * (va + vb) ** 2 / (va**2 + vb**2)
        t_crit = float(sps.t.ppf(1 - alpha / 2, df))
        if float(sps.nct.sf(t_crit, df, diff / math.sqrt((va + vb) / n))) >= power:
            return n
    return None


def outliers(values: Sequence[float], *, z: float = 3.5) -> tuple[int, ...]:
    """Positions whose modified z-score (median absolute deviation) exceeds `z`. To be flagged, never deleted.

    None among fewer than MIN_FOR_OUTLIERS (of three, the two closest always make the third one far), and none within
    the noise threshold of the median.
    """
    if len(values) < MIN_FOR_OUTLIERS:
        return ()
    mad = float(sps.median_abs_deviation(values, scale="normal"))
    middle = float(np.median(values))
    return tuple(i for i, v in enumerate(values) if abs(v - middle) > max(z * mad, NOISE * abs(middle)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """A window in equal parts: mean rate of each (tok/s), and their CV."""

    parts: tuple[float, ...]
    cv: float

    @property
    def steady(self) -> bool:
        return self.cv <= UNSTEADY_CV


def steadiness(series: Sequence[float]) -> Steadiness | None:
    """Rates in equal slices of one window, folded into PARTS parts; None where there are under two slices a part."""
    if len(series) < 2 * PARTS or not any(series):
        return None
    edges = [len(series) * n // PARTS for n in range(PARTS + 1)]
    parts = tuple(float(np.mean(series[a:b])) for a, b in pairwise(edges))
    return Steadiness(parts=parts, cv=float(np.std(parts, ddof=1)) / float(np.mean(parts)))
