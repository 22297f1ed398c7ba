"""The dialects in which servers give log-probabilities."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checking_server import Answer, golden, served, top, vllm

from sweeper.probes.openai import RequestProblem
from sweeper.probes.scoring import Scorer, says_nan
from sweeper.probes.textscores import score_text

IDS = golden().cases[0].prompt_ids


def sglang(route: str, body: dict[str, Any]) -> Answer:
    if route != "/generate":
        return 404, {"error": "no such route"}
    ids, count = body["input_ids"], body["sampling_params"]["max_new_tokens"]
    made = [(ids[-1] + 1 + place) % 64 for place in range(count)]
    rows = {
        "output_token_logprobs": [[-0.1, token, None] for token in made],
        "output_top_logprobs": [[[v, t, None] for t, v in top(token)] for token in made],
        "input_token_logprobs": [[None, ids[0], None], *[[-0.1, token, None] for token in ids[1:]]],
        "input_top_logprobs": [None, *[[[v, t, None] for t, v in top(token)] for token in ids[1:]]],
    }
    return 200, {"text": "x", "meta_info": rows}


def echo(route: str, body: dict[str, Any]) -> Answer:
    if body.get("prompt_logprobs") is not None:
        return 400, {"error": "unknown field"}
    if not body.get("echo"):
        return vllm(body)
    ids = body["prompt"]
    if isinstance(ids, str):
        return 200, {"choices": [{"text": ids, "logprobs": {"tokens": ["a", "b"], "token_logprobs": [None, -0.5]}}]}
    block = {
        "tokens": [f"t{token}" for token in ids],
        "token_logprobs": [None, *[-0.1] * (len(ids) - 1)],
        "top_logprobs": None,
    }
    return 200, {"choices": [{"text": "", "logprobs": block}]}


@pytest.mark.parametrize(
    ("dialect", "answer"), [("vllm", lambda route, body: vllm(body)), ("sglang", sglang), ("openai", echo)]
)
def test_a_prompt_is_scored_in_every_dialect(dialect: str, answer: Any) -> None:
    with served(answer) as url:
        scorer = Scorer(url, "fake")
        assert scorer.detect(IDS) == dialect
        found = scorer.prompt(IDS)
        made = scorer.greedy(IDS, 5)
        scorer.close()
    assert found.ids == tuple(IDS)
    assert found.logprobs[0] is None
    assert found.logprobs[1:] == tuple([-0.1] * 23)
    assert made.ids == tuple((IDS[-1] + 1 + place) % 64 for place in range(5))
    assert made.tops[0][0][0] == made.ids[0]


def test_a_failed_request_is_an_item_among_the_answers() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        return (503, "busy") if body["prompt"][0] == 1 else vllm(body)

    with served(answer) as url:
        scorer = Scorer(url, "fake")
        good, bad = scorer.many([[2, 3], [1, 2]], 4, 2)
        scorer.close()
    assert isinstance(bad, RequestProblem)
    assert bad.status == 503
    assert not isinstance(good, RequestProblem)


def test_odd_prompt_logprobs_are_a_problem_and_no_crash() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        return 200, {"choices": [{"prompt_logprobs": [None, *[["what"]] * 23]}]}

    with served(answer) as url:
        scorer = Scorer(url, "fake")
        assert scorer.detect(IDS) is None
        scorer.close()


def test_the_words_of_a_nan_that_could_not_be_written_are_known() -> None:
    assert says_nan(RequestProblem("HTTP 500: Out of range float values are not JSON compliant"))
    assert not says_nan(RequestProblem("HTTP 500: Internal Server Error"))


def test_texts_are_scored_without_their_first_token_and_with_best_tokens() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        rows = [None, {"5": {"logprob": -1.0}, "9": {"logprob": -0.5}}, {"9": {"logprob": -0.5}}]
        return 200, {"choices": [{"text": "", "prompt_logprobs": rows}]}

    with served(answer) as url:
        found = score_text(url, None, ["one", "two"])
    assert (found.model, found.tokens, found.best) == ("fake", 4, ((9, 9), (9, 9)))
    assert found.nll == pytest.approx(0.75)


def test_texts_on_servers_that_score_nothing_or_are_gone_say_why() -> None:
    with served(lambda route, body: (200, {"choices": [{"text": "hi"}]})) as url:
        assert score_text(url, None, ["one"]).problem == "the server scores no prompts"
    gone = score_text("http://127.0.0.1:9", "m", ["one"])
    assert gone.nll is None
    assert gone.problem is not None
    assert "Connect" in gone.problem


def test_a_nan_in_a_text_is_a_nan_and_not_a_gap() -> None:
    rows = [None, {"5": {"logprob": None}}]
    with served(lambda route, body: (200, {"choices": [{"prompt_logprobs": rows}]})) as url:
        found = score_text(url, None, ["one"])
    assert found.nll is not None
    assert math.isnan(found.nll)


def test_texts_fall_back_to_the_echo_route() -> None:
    with served(echo) as url:
        found = score_text(url, None, ["one"])
    assert (found.tokens, found.nll) == (1, 0.5)
