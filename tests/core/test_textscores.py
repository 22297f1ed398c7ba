"""A cell against its reference cell on fixed text."""

from __future__ import annotations

import json
import math

import pytest

from sweeper.core.textscores import TextScores, compare_text


def scores(nll: float | None, best: tuple[tuple[int, ...], ...] = (), tokens: int = 100) -> TextScores:
    return TextScores(model="m", nll=nll, tokens=tokens, best=best, problem=None if nll is not None else "no logprobs")


def test_the_same_numbers_are_right_with_score_100() -> None:
    found = compare_text(scores(2.0, ((1, 2),)), scores(2.0, ((1, 2),)))
    assert (found.verdict, found.relative_score, found.agreement) == ("right", 100.0, 1.0)


def test_another_quantisation_of_the_size_published_is_still_right() -> None:
    found = compare_text(scores(math.log(1.481134)), scores(math.log(1.504343)))
    assert found.verdict == "right"
    assert found.relative_score == pytest.approx(98.46, abs=0.01)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.06, "degraded"), (-0.06, "degraded"), (1.5, "garbage"), (9.0, "garbage")]
)
def test_off_by_more_than_the_tolerance_is_not_right_and_says_by_how_much(shift: float, verdict: str) -> None:
    found = compare_text(scores(2.0), scores(2.0 + shift))
    assert found.verdict == verdict
    assert found.why is not None and "relative score" in found.why


def test_equal_perplexity_with_other_best_tokens_is_not_right() -> None:
    found = compare_text(scores(2.0, (tuple(range(100)),)), scores(2.0, (tuple(range(100, 200)),)))
    assert found.verdict == "garbage" and found.agreement == 0


def test_nan_is_garbage_and_nothing_scored_is_unchecked() -> None:
    assert compare_text(scores(2.0), scores(math.nan)).verdict == "garbage"
    assert compare_text(scores(2.0), scores(None)).verdict == "unchecked"
    assert compare_text(scores(2.0), scores(2.0, tokens=99)).verdict == "unchecked"


def test_scores_survive_the_store() -> None:
    kept = scores(2.0, ((1, 2), (3,)))
    assert TextScores.from_json(json.loads(json.dumps(kept.to_json()))) == kept
