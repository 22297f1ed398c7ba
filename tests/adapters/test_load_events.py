"""Streamed answers: which events carry tokens, and what counts as an error."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.probes.load.events import Answer, body_error

DONE = b"data: [DONE]\n\n"


def event(text: str | None = "a", tokens: int | None = None, **more: object) -> bytes:
    choices = [] if text is None else [{"index": 0, "text": text, "finish_reason": more.pop("finish", None)}]
    data: dict[str, object] = {"choices": choices, **more}
    if tokens is not None:
        data["usage"] = {"prompt_tokens": 5, "completion_tokens": tokens}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chat(**delta: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode() + b"\n\n"


def fed(*parts: bytes, requested: int = 9) -> Answer:
    answer = Answer(0, requested)
    for number, part in enumerate(parts):
        answer.feed(part, float(number))
    answer.finish_body(99.0)
    return answer


def test_cumulative_usage_counts_tokens_whatever_the_chunk() -> None:
    answer = fed(
        event(tokens=3), event(tokens=6), event(tokens=7, finish="length"), event(None, 7), b"data: [DONE]\n\n"
    )
    assert list(answer.totals) == [3, 6, 7]
    assert list(answer.stamps) == [0.0, 1.0, 2.0]
    assert (answer.source(), answer.finish, answer.prompt_tokens, answer.done) == ("usage", "length", 5, True)


def test_role_only_and_empty_events_are_not_tokens() -> None:
    answer = fed(event("", 0), event("", 0), event("x", 1))
    assert list(answer.stamps) == [2.0]
    plain = fed(chat(role="assistant", content=""), chat(content="x"))
    assert list(plain.stamps) == [1.0]


def test_a_token_without_text_is_a_token_when_usage_says_so() -> None:
    assert list(fed(event("", 1), event("", 2)).totals) == [1, 2]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "content", "refusal"])
def test_every_kind_of_text_counts(name: str) -> None:
    assert fed(chat(**{name: "hm"})).units == 1


def test_tool_calls_count() -> None:
    assert fed(chat(tool_calls=[{"index": 0, "function": {"arguments": "{"}}])).units == 1


def test_token_ids_are_counted_where_usage_is_missing() -> None:
    part = b'data: {"choices":[{"text":"ab","token_ids":[4,5,6]}]}\n\n'
    answer = fed(part, part)
    assert (list(answer.totals), answer.source()) == ([3, 6], "token_ids")


def test_a_final_count_is_called_so() -> None:
    assert fed(event("ab"), event("cd"), event(None, 6)).record()["final_tokens"] == 6
    assert fed(event("ab"), event("cd"), event(None, 6)).source() == "final_usage"


def test_usage_in_the_last_text_event_only_is_a_final_count() -> None:
    answer = fed(event("ab"), event("cd"), event("ef", 9, finish="length"))
    assert (answer.source(), answer.final_tokens, answer.finish) == ("final_usage", 9, "length")


def test_without_any_count_there_are_only_chunks() -> None:
    assert fed(event("ab"), event("cd")).source() == "chunks"


def test_an_error_event_inside_200_is_an_error() -> None:
    answer = fed(event(tokens=1), b'data: {"error": {"message": "engine died", "code": 500}}\n\n', b"data: [DONE]\n\n")
    assert answer.error == "server error: engine died"


def test_a_server_that_does_not_stream_is_told_apart() -> None:
    assert "does not stream" in (fed(b'{"choices": [{"text": "all at once"}]}').error or "")


def test_an_event_that_is_not_json_is_an_error() -> None:
    assert "not JSON" in (fed(b"data: {oops\n\n").error or "")


def test_comments_and_event_names_are_passed_over() -> None:
    assert list(fed(b": ping\n\n", b"event: message\n" + event(tokens=2)).totals) == [2]


@given(st.lists(st.integers(1, 400), max_size=12), st.booleans())
def test_any_cut_of_the_bytes_gives_the_same_tokens(cuts: list[int], crlf: bool) -> None:
    whole = b"".join(
        [event(tokens=2), event("é", 5), event("z", 6, finish="length"), event(None, 6), b"data: [DONE]\n\n"]
    )
    whole = whole.replace(b"\n", b"\r\n") if crlf else whole
    edges = sorted({0, len(whole), *(c for c in cuts if c < len(whole))})
    answer = fed(*(whole[a:b] for a, b in pairwise(edges)))
    assert (list(answer.totals), answer.finish, answer.done, answer.error) == ([2, 5, 6], "length", True, None)


def test_per_request_acceptance_is_kept() -> None:
    figures = {"num_spec_steps": 3}
    answer = fed(event(tokens=1), event(None, 1, metrics={"speculative_decoding": figures}))
    assert answer.record()["speculative"] == figures


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, b'{"error": {"message": "too long"}}', "HTTP 400: too long"),
        (404, b'{"detail": "Not Found"}', "HTTP 404: Not Found"),
        (502, b"<html>bad", "HTTP 502: <html>bad"),
        (500, b"", "HTTP 500"),
        (500, b"[]", "HTTP 500: not an event: []"),
    ],
)
def test_an_answer_that_is_not_200_becomes_one_line(status: int, body: bytes, said: str) -> None:
    assert body_error(status, body) == said


@pytest.mark.parametrize("payload", [b"[1, 2]", b"7", b'"text"', b"null"])
def test_an_event_that_is_no_object_is_an_error_and_not_a_crash(payload: bytes) -> None:
    answer = fed(event(tokens=1), b"data: " + payload + b"\n\n", DONE)
    assert answer.error is not None
    assert answer.error.startswith("not an event: ")


def test_a_body_that_ends_without_a_finish_reason_or_done_broke_off() -> None:
    assert fed(event(tokens=1)).error == "the stream ended without a finish reason or [DONE]"
    assert fed(event(tokens=1, finish="length")).error is None
    assert fed(event(tokens=1), DONE).error is None
