"""One wrong expert stands out among the tokens routed to it, and rounding does not."""

from __future__ import annotations

import random

import pytest

from sweeper.core.numerics import Limits, Position, figures, grade
from sweeper.core.numerics_routing import LEAST, Expert, wrong_expert

EXPERTS, LAYERS, TOP_K, TOKENS = 8, 4, 2, 600


def routed(draw: random.Random) -> list[tuple[Expert, ...]]:
    return [
        tuple((layer, expert) for layer in range(LAYERS) for expert in draw.sample(range(EXPERTS), TOP_K))
        for _ in range(TOKENS)
    ]


def rounding(draw: random.Random) -> list[float]:
    """KL per token as healthy servers show it: over three powers of ten, whatever the expert."""
    return [draw.lognormvariate(-3.5, 1.5) for _ in range(TOKENS)]


def test_the_expert_whose_tokens_are_three_times_as_far_off_is_named() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        ways, off = routed(draw), rounding(draw)
        broken = (draw.randrange(LAYERS), draw.randrange(EXPERTS))
        found = wrong_expert([3 * kl if broken in way else kl for kl, way in zip(off, ways, strict=True)], ways)
        assert found is not None
        assert (found.layer, found.expert) == broken
        assert found.ratio > 1.5
        assert found.tokens == sum(broken in way for way in ways)


def test_rounding_accuses_no_expert() -> None:
    for seed in range(150):
        draw = random.Random(1000 + seed)
        assert wrong_expert(rounding(draw), routed(draw)) is None


def test_without_routing_or_with_few_tokens_nothing_is_said() -> None:
    assert wrong_expert([0.1] * 100, [()] * 100) is None
    few: list[tuple[Expert, ...]] = [((0, 1),)] * (LEAST - 1) + [((0, 2),)] * 100
    assert wrong_expert([9.0] * (LEAST - 1) + [0.001] * 100, few) is None
    assert wrong_expert([], []) is None


def test_a_wrong_expert_is_a_reason_with_its_name() -> None:
    def position(number: int) -> Position:
        expert, off = number % 4, 0.3 if number % 4 == 1 else 0.0
        top = ((1, -0.1), (2, -3.0))
        return Position(
            golden=-0.1,
            measured=-0.1,
            golden_top=top,
            measured_top=((1, -0.1), (2, -3.0 + off)),
            experts=((2, expert),),
        )

    wide = Limits(nll_shift=1.0, kl_topk=1.0, argmax_agreement=0.1)
    found = grade({"prefill": figures([position(number) for number in range(400)])}, [], wide)
    assert found.verdict == "degraded"
    assert "100 tokens routed to expert 1 of layer 2" in found.reasons[0]
    healthy = figures([position(4 * number) for number in range(400)])
    assert healthy.wrong_expert is None


@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_positions_without_any_spread_are_compared_all_the_same(gap: float) -> None:
    ways: list[tuple[Expert, ...]] = [((0, number % 2),) for number in range(100)]
    found = wrong_expert([0.1 + gap * (number % 2) for number in range(100)], ways)
    assert (found is not None) == (gap > 0)
