"""Simulated launches: how often a winner is called where there is none, and what racing costs against full rounds.

    python benchmarks/stats_racing.py [--trials 2000] [--seed 1]

Speeds of 16 cells lie between 40 % and 100 % of the best, as backends do; launches scatter log-normally around them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeper.core.racing import Race, confirmed, next_launches
from sweeper.core.rank import rank
from sweeper.core.verdicts import RankedRow

CELLS = 16


def speeds(rng: np.random.Generator, gap: float) -> dict[str, float]:
    """The best, one cell `gap` behind it, the rest spread below; names shuffled so that order tells nothing."""
    rest = 1 - gap - 0.6 * rng.random(CELLS - 2)
    values = [100.0, 100 * (1 - gap), *(100 * rest)]
    rng.shuffle(values)
    return {f"c{i:02d}": v for i, v in enumerate(values)}


def launch(rng: np.random.Generator, speed: float, cv: float) -> float:
    return float(speed * np.exp(rng.normal(0, cv)))


def full_rounds(
    rng: np.random.Generator, truth: Mapping[str, float], cv: float, launches: int
) -> dict[str, list[float]]:
    return {cell: [launch(rng, v, cv) for _ in range(launches)] for cell, v in truth.items()}


def race(rng: np.random.Generator, truth: Mapping[str, float], cv: float, rules: Race) -> dict[str, list[float]]:
    order, samples = list(truth), {cell: [] for cell in truth}  # type: ignore[var-annotated]
    while batch := next_launches(samples, order=order, race=rules):
        for cell in batch:
            samples[cell].append(launch(rng, truth[cell], cv))
    return samples


def top(samples: Mapping[str, Sequence[float]]) -> RankedRow:
    return rank(samples, labels={}, workload="decode", concurrency=1)[0]


@dataclass(frozen=True)
class Score:
    """Shares of trials; launches as mean and worst."""

    best_found: float
    wrong_winner: float
    """A cell that is not the best alone on place 1."""
    launches: float
    most: int


def score(outcomes: Sequence[tuple[Mapping[str, float], Mapping[str, Sequence[float]], bool]]) -> Score:
    found = wrong = 0
    for truth, samples, fresh_only in outcomes:
        ranked = confirmed(samples) if fresh_only else samples
        first = max(ranked, key=lambda cell: float(np.mean(ranked[cell])))
        best = truth[first] == max(truth.values())
        found += best
        wrong += not best and not top(ranked).tied
    counts = [sum(len(v) for v in samples.values()) for _, samples, _ in outcomes]
    n = len(outcomes)
    return Score(best_found=found / n, wrong_winner=wrong / n, launches=sum(counts) / n, most=max(counts))


def scenario(seed: int, trials: int, gap: float, cv: float) -> tuple[Score, Score]:
    """Full rounds of three, and racing, on the same truths."""
    rng = np.random.default_rng(seed)
    truths = [speeds(rng, gap) for _ in range(trials)]
    full = score([(truth, full_rounds(rng, truth, cv, 3), False) for truth in truths])
    raced = score([(truth, race(rng, truth, cv, Race(launches=3)), True) for truth in truths])
    return full, raced


def equal_winner(seed: int, trials: int, cells: int, cv: float, launches: int) -> float:
    """Share of trials in which one of several equal cells stands alone on place 1."""
    rng = np.random.default_rng(seed)
    truth = {f"c{i}": 100.0 for i in range(cells)}
    return sum(not top(full_rounds(rng, truth, cv, launches)).tied for _ in range(trials)) / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("false winner among equal cells")
    print("cells  launches    CV   called")
    for cells, launches, cv in [(2, 2, 0.01), (2, 3, 0.01), (2, 3, 0.04), (2, 5, 0.04), (4, 3, 0.04), (16, 3, 0.04)]:
        trials = args.trials if cells < 16 else args.trials // 4
        print(f"{cells:5d}  {launches:8d}  {cv:4.0%}  {equal_winner(args.seed, trials, cells, cv, launches):6.1%}")
    print("\nbest of 16 found; three full rounds are 48 launches")
    print(" gap    CV   full  racing   launches (most)   wrong winner full  racing")
    for gap in (0.03, 0.05, 0.10):
        for cv in (0.01, 0.02, 0.04):
            full, raced = scenario(args.seed, args.trials, gap, cv)
            print(
                f"{gap:4.0%}  {cv:4.0%}  {full.best_found:5.1%}  {raced.best_found:6.1%}   "
                f"{raced.launches:8.1f} ({raced.most:d})   {full.wrong_winner:17.1%}  {raced.wrong_winner:6.1%}"
            )


if __name__ == "__main__":
    main()
