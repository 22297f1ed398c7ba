"""Is one accuracy figure really higher than another? Intervals and tests over right and wrong answers. Pure.

A difference is only worth a sentence when a test says so. With answers to the same questions on both sides the test is
paired (exact McNemar), because two runs mostly fail on the same questions; with totals alone it is the two-proportion
z test, which needs larger differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.stats import binomtest, norm, ttest_rel

ALPHA = 0.05

Finding = Literal["higher", "lower", "no difference shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Share of right answers with its 95 % interval, all in 0..1."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Candidate minus reference. `points` in percentage points. `p`: two-sided; None where no test applies."""

    points: float
    p: float | None
    finding: Finding
    test: str
    pairs: int = 0
    only_reference: int = 0
    """Questions that only the reference answers rightly."""
    only_candidate: int = 0

    def to_json(self) -> dict[str, object]:
        return {
            "points": self.points, "p": self.p, "finding": self.finding, "test": self.test, "pairs": self.pairs,
            "only_reference": self.only_reference, "only_candidate": self.only_candidate,
        }  # fmt: skip


def wilson(right: float, n: int, *, alpha: float = ALPHA) -> Interval | None:
    """Wilson's score interval (1927); None without questions. `right` may be a sum of fractional scores."""
    if n < 1:
        return None
    if not 0 <= right <= n:
        raise ValueError(f"{right} right of {n}")
    z = float(norm.ppf(1 - alpha / 2))
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar: under no difference the discordant pairs fall either way with probability 1/2."""
    n = only_a + only_b
    return 1.0 if n == 0 else float(binomtest(min(only_a, only_b), n, 0.5).pvalue)


def two_proportions(right_a: float, n_a: int, right_b: float, n_b: int) -> float | None:
    """Two-sided p of the pooled z test; None where a side is empty or everything is right or wrong."""
    if n_a < 1 or n_b < 1:
        return None
    pooled = (right_a + right_b) / (n_a + n_b)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return float(2 * norm.sf(abs(right_a / n_a - right_b / n_b) / spread)) if spread else None


def compare_paired(reference: Mapping[str, float], candidate: Mapping[str, float]) -> Difference | None:
    """Over the questions both sides answered; None where they share none. Scores in 0..1 per question.

    Right-or-wrong scores: exact McNemar. Fractional ones: the paired t test.
    """
    shared = sorted(reference.keys() & candidate.keys())
    if not shared:
        return None
    a, b = [reference[key] for key in shared], [candidate[key] for key in shared]
    points = 100 * (math.fsum(b) - math.fsum(a)) / len(shared)
    only_a = sum(x > y for x, y in zip(a, b, strict=True))
    only_b = sum(y > x for x, y in zip(a, b, strict=True))
    p: float | None
    if all(value in (0, 1) for value in (*a, *b)):
        p, test = mcnemar(only_a, only_b), "exact McNemar"
    elif only_a + only_b == 0:
        p, test = 1.0, "paired t"
    else:
        p, test = (float(ttest_rel(b, a).pvalue) if len(shared) > 1 else math.nan), "paired t"
        p = None if math.isnan(p) else p
    return Difference(
        points=points, p=p, finding=_finding(points, p), test=test, pairs=len(shared), only_reference=only_a,
        only_candidate=only_b,
    )  # fmt: skip


def compare_totals(right_a: float, n_a: int, right_b: float, n_b: int) -> Difference | None:
    """Candidate b against reference a from totals alone; None where a side is empty."""
    if n_a < 1 or n_b < 1:
        return None
    points = 100 * (right_b / n_b - right_a / n_a)
    p = two_proportions(right_a, n_a, right_b, n_b)
    return Difference(points=points, p=p, finding=_finding(points, p), test="two proportions")


def relative_score(perplexity: float, reference: float) -> float:
    """100 * PPL of the reference / PPL: 100 is as good as the reference, less is worse."""
    return 100 * reference / perplexity


def questions_needed(share: float, points: float, *, alpha: float = ALPHA, power: float = 0.8) -> int:
    """Questions per side for an unpaired test to see a difference of `points` percentage points near `share`."""
    gap = abs(points) / 100
    if not gap:
        raise ValueError("a difference of nothing takes infinitely many questions")
    z = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    return math.ceil(2 * share * (1 - share) * (z / gap) ** 2)


def _finding(points: float, p: float | None) -> Finding:
    if p is None or p >= ALPHA or not points:
        return "no difference shown"
    return "higher" if points > 0 else "lower"


def same_number(said: str, wanted: str) -> bool:
    """Whether the only number in `said` (thousands separators and units allowed) is `wanted`, to 1e-6."""
    found = re.findall(r"[-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?", said.replace("−", "-"))
    if len(found) != 1:
        return False
    return math.isclose(float(found[0].replace(",", "")), float(wanted), rel_tol=1e-6, abs_tol=1e-9)
