"""Which cells are launched again: screen once, then repeat only what may still be the best.

A screening launch of every cell, then rounds of fresh launches. Each round goes to the leaders that the launches so far
do not rule out, a third of the remaining budget at a time (successive rejects), together with the cells that must be
confirmed in any case and the reference. Every other round runs in reverse order (A B C, C B A), so that slow drift does
not favour a cell. The places are then taken from the fresh launches: see `confirmed`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as sps

from sweeper.core.rank import separated_from
from sweeper.core.stats import NOISE

PRIOR_CV = 0.02
PRIOR_DF = 4.0
"""Spread between launches that is assumed before repeats show it, and the weight of that assumption."""
RULED_OUT = 0.99
"""One-sided confidence with which a cell must be slower than the leader to get no further launch."""
FRESH_TO_CONFIRM = 2
CONTENDERS = 3
"""Leaders that are paid for in the smallest budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How far repeats may go. `launches` is what a full round-robin would give every cell.

    `budget`: launches of the whole sweep; None takes half of the full rounds, and never less than a screening launch of
    each cell plus as many fresh ones of three leaders as give them `launches` each (two at least).
    """

    launches: int = 3
    confirm_top: int = 0
    reference: str | None = None
    budget: int | None = None
    noise: float = NOISE

    def limit(self, cells: int) -> int:
        if self.budget is not None:
            return max(self.budget, cells)
        fresh = max(FRESH_TO_CONFIRM, self.launches - 1)
        least = cells + fresh * min(cells, max(self.confirm_top, CONTENDERS) + bool(self.reference))
        return max(cells * self.launches // 2, least)


def next_launches(
    samples: Mapping[str, Sequence[float]],
    *,
    order: Sequence[str],
    race: Race,
    failed: Collection[str] = (),
) -> tuple[str, ...]:
    """The next batch of cell ids; empty when the sweep is done.

    `samples`: launch means so far, per cell. `order`: every cell that can run, in screening order. `failed`: cells that
    get no further launch whatever their samples say.
    """
    alive = [cell for cell in order if cell not in failed]
    counts = {cell: len(samples.get(cell, ())) for cell in alive}
    unseen = tuple(cell for cell in alive if counts[cell] == 0)
    if unseen or (race.launches < 2 and not race.confirm_top):
        return unseen
    left = race.limit(len(order)) - sum(len(v) for v in samples.values())
    if left <= 0 or len(alive) == 0:
        return ()
    known = {cell: samples[cell] for cell in alive}
    wanted = _wanted(known, race, left)
    if race.reference in alive and wanted and race.reference not in wanted:
        wanted = [*wanted, str(race.reference)]
    batch = sorted(wanted[: max(left, 1)], key=order.index)
    return tuple(reversed(batch)) if max((counts[c] for c in batch), default=1) % 2 == 0 else tuple(batch)


def _wanted(known: Mapping[str, Sequence[float]], race: Race, left: int) -> list[str]:
    """Cells of the next round, the most wanted first."""
    best_first = sorted(known, key=lambda cell: -float(np.mean(known[cell])))
    must = [c for c in best_first[: race.confirm_top] if len(known[c]) < 1 + FRESH_TO_CONFIRM]
    open_ = _contenders(known, best_first)
    if len(open_) == 1:
        winner = best_first[0]
        fresh = max(FRESH_TO_CONFIRM, race.launches - 1)
        return must or ([winner] if len(known[winner]) < 1 + fresh else [])
    if not must and _decided(known, open_, race):
        return []
    racing = open_[: max(2, math.ceil(left / 3))]
    return list(dict.fromkeys([*must, *racing]))


def _contenders(known: Mapping[str, Sequence[float]], best_first: Sequence[str]) -> list[str]:
    """The leader and those not ruled out against it, with the spread pooled over cells and the assumed one."""
    logs = {cell: np.log(np.maximum(values, 1e-9)) for cell, values in known.items()}
    squares = sum(float(((v - v.mean()) ** 2).sum()) for v in logs.values())
    df = PRIOR_DF + sum(len(v) - 1 for v in logs.values())
    sd = math.sqrt((PRIOR_DF * PRIOR_CV**2 + squares) / df)
    limit = float(sps.t.ppf(RULED_OUT, df)) * sd
    leader = logs[best_first[0]]

    def behind(cell: str) -> float:
        return float(leader.mean() - logs[cell].mean()) / math.sqrt(1 / len(leader) + 1 / len(logs[cell]))

    return [cell for cell in best_first if cell == best_first[0] or behind(cell) <= limit]


def _decided(known: Mapping[str, Sequence[float]], open_: Sequence[str], race: Race) -> bool:
    """Fresh launches of the leader separate it from every contender."""
    fresh = confirmed(known)
    if any(len(fresh[cell]) < FRESH_TO_CONFIRM for cell in open_) or len(known[open_[0]]) < race.launches:
        return False
    return all(separated_from(fresh[open_[0]], [fresh[cell] for cell in open_[1:]], noise=race.noise))


def confirmed(samples: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """The launches to rank on: without the screening launch of every cell that has two or more fresh ones.

    The screening launch chose the cell, so it flatters it (winner's curse). When all cells had the same number of
    launches, nothing was chosen and every launch counts.
    """
    kept = {cell: tuple(values) for cell, values in samples.items() if values}
    if len({len(values) for values in kept.values()}) <= 1:
        return kept
    return {cell: values[1:] if len(values) > FRESH_TO_CONFIRM else values for cell, values in kept.items()}


def next_launches_of_tables(
    tables: Sequence[Mapping[str, Sequence[float]]],
    *,
    order: Sequence[str],
    race: Race,
) -> tuple[str, ...]:
    """As `next_launches`, for several workloads measured on the same launches: what any of them wants is launched.

    A cell that a table lacks has no such point (its output length had to differ): another launch would not give it one.
    """
    batches = [next_launches(table, order=[c for c in order if table.get(c)], race=race) for table in tables]
    return tuple(dict.fromkeys(cell for batch in batches for cell in batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Change of the reference cell in the sweep. `change`: end against start of the fitted line, 0.03 is 3 % faster."""

    launches: int
    change: float
    p: float | None
    drifted: bool
    text: str


def drift(reference: Sequence[float], *, noise: float = NOISE) -> Drift | None:
    """Trend of a cell's launch means in the order in which they were made; None with fewer than two.

    With three launches or more: a line through the logs, drifted when its change exceeds the noise threshold and
    p < 0.05. With two no spread is known: drifted when they differ by more than twice the threshold.
    """
    n = len(reference)
    if n < 2 or min(reference) <= 0:
        return None
    if n == 2:
        change, p = reference[1] / reference[0] - 1, None
        drifted = abs(change) > 2 * noise
    else:
        fit = sps.linregress(np.arange(n), np.log(reference))
        change, p = math.exp(float(fit.slope) * (n - 1)) - 1, float(fit.pvalue)
        drifted = abs(change) > noise and p < 0.05
    said = "drifted" if drifted else "held"
    text = f"the reference cell {said}: {change:+.1%} over {n} launches" + (f" (p = {p:.2g})" if p is not None else "")
    return Drift(launches=n, change=change, p=p, drifted=drifted, text=text)
