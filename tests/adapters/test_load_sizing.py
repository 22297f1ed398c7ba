"""Prompts are fitted to a number of tokens by counting, whatever a token is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.probes.load.prompts import prompt
from sweeper.probes.load.sizing import Goal, Length, fit, shifted

Counter = Callable[[Sequence[str]], list[int]]


def text(index: int, length: Length) -> str:
    return prompt(length.words, seed=7, index=index, cut=length.cut)


def pieces(size: float) -> Counter:
    """Tokens of at most `size` characters, none over a space."""
    return lambda texts: [int(sum(-(-len(word) // size) for word in one.split())) for one in texts]


@settings(max_examples=60, deadline=None)
@given(st.floats(0.9, 12.0), st.integers(16, 3000), st.floats(0.4, 3.0))
def test_any_size_of_token_ends_within_a_token_or_half_a_percent(size: float, tokens: int, wrong: float) -> None:
    count = pieces(size)
    goal = Goal(tokens=tokens, slack=max(1, tokens // 200), most=1 << 29)
    guess = max(4, round(wrong * tokens / 2))
    (length,) = fit([partial(text, 1)], count, goal, guess, 2.0) or [Length(0)]
    smallest = count([text(1, Length(4))])[0]
    assert abs(count([text(1, length)])[0] - max(tokens, smallest)) <= max(goal.slack, 2) or smallest > tokens


@given(st.integers(60, 400))
def test_a_fitted_prompt_is_never_longer_than_the_most(tokens: int) -> None:
    count = pieces(2.0)
    goal = Goal(tokens=tokens, slack=3, most=tokens)
    (length,) = fit([partial(text, 2)], count, goal, tokens, 2.0) or [Length(0)]
    assert count([text(2, length)])[0] <= tokens


def test_prompts_are_counted_side_by_side_and_only_while_they_need_it() -> None:
    asked: list[int] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.append(len(texts))
        return pieces(2.0)(texts)

    fit([partial(text, i) for i in range(8)], count, Goal(tokens=500, slack=2, most=1 << 29), 200, 2.5)
    assert asked[0] == 8
    assert asked[-1] < 8
    assert len(asked) <= 12


def test_rounds_are_bounded_and_the_best_so_far_is_kept() -> None:
    goal = Goal(tokens=500, slack=0, most=1 << 29)
    (length,) = fit([partial(text, 1)], pieces(2.0), goal, 10, 2.5, rounds=2) or [Length(0)]
    assert length.words > 10


def test_a_counter_that_gives_up_gives_no_lengths() -> None:
    assert fit([partial(text, 1)], lambda texts: None, Goal(tokens=9, slack=1, most=99), 9, 1.0) is None
    assert shifted(lambda texts: None, 3)(["a"]) is None
    assert shifted(lambda texts: [1], 3)(["a"]) == [4]


@pytest.mark.parametrize("kind", ["prose", "code"])
def test_a_twin_has_another_first_line_of_the_same_length(kind: str) -> None:
    one, other = (prompt(60, seed=1, index=3, kind=kind, twin=twin) for twin in (False, True))
    assert one[:15] != other[:15]
    assert len(one) == len(other)
    assert one[30:] == other[30:]
