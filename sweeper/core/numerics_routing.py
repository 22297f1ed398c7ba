"""One wrong expert, seen by the tokens that were routed to it. Pure.

Drawn weights are as far from their reference as the format's rounding takes them, and with 4-bit activations that is
as far as one dead expert among many. But rounding hits all tokens alike, and a wrong expert only its own: the
logarithms of the KL at the tokens routed to it are compared with those at the others (Welch's t).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

Expert = tuple[int, int]
"""(layer, number)."""

FALSE_ALARMS = 1e-4
"""Per group of positions, over all experts of all layers; the normal approximation of t holds above `LEAST` tokens."""
LEAST = 16
LEAST_RATIO = 1.5
"""Healthy experts differ by up to 1.35 (128 of `tiny`, measured by benchmarks/check_faults)."""
SMALLEST_KL = 1e-6
"""Golden log-probabilities are rounded to 1e-5; below this a KL is noise of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongExpert:
    """The expert whose tokens are furthest off. `ratio`: geometric mean of their KL over that of all others."""

    layer: int
    expert: int
    tokens: int
    ratio: float
    t: float


def wrong_expert(divergences: Sequence[float], routed: Sequence[Sequence[Expert]]) -> WrongExpert | None:
    """The worst expert that stands out; None where none does, or where nothing is known of the routing.

    `divergences`: KL in nats per position; `routed`: the experts that the reference chose there.
    """
    logs = [math.log(max(value, 0.0) + SMALLEST_KL) for value in divergences]
    places: Mapping[Expert, list[int]] = defaultdict(list)
    for index, experts in enumerate(routed):
        for expert in experts:
            places[expert].append(index)
    tested = {key: own for key, own in places.items() if LEAST <= len(own) <= len(logs) - LEAST}
    if not tested:
        return None
    bound = NormalDist().inv_cdf(1 - FALSE_ALARMS / len(tested))
    worst = max((_compared(key, own, logs) for key, own in tested.items()), key=lambda found: found.t)
    return worst if worst.t > bound and worst.ratio > LEAST_RATIO else None


def _compared(key: Expert, own: Sequence[int], logs: Sequence[float]) -> WrongExpert:
    mine = set(own)
    here, there = [logs[i] for i in own], [value for i, value in enumerate(logs) if i not in mine]
    gap = fmean(here) - fmean(there)
    spread = math.sqrt(variance(here) / len(here) + variance(there) / len(there))
    t = gap / spread if spread else math.copysign(math.inf, gap) if gap else 0.0
    return WrongExpert(layer=key[0], expert=key[1], tokens=len(own), ratio=math.exp(gap), t=t)
