"""Score fixed texts on a running server: `prompt_logprobs` of vLLM, or the echo of the plain completions route."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import httpx

from sweeper.core.textscores import TextScores


def score_text(base_url: str, model: str | None, texts: Sequence[str], *, timeout_s: float = 300.0) -> TextScores:
    """NLL per token and best tokens over `texts`, one request each. Never raises for the server: `problem` says it."""
    with httpx.Client(base_url=base_url, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False) as http:
        name = model
        try:
            name = model or str(http.get("/v1/models").json()["data"][0]["id"])
            rows = [_row(http, name, text) for text in texts]
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            return TextScores(model=name or "", nll=None, tokens=0, problem=_words(error))
    values = [value for row, _ in rows for value in row]
    if not values:
        return TextScores(model=name, nll=None, tokens=0, problem="the server scores no prompts")
    return TextScores(
        model=name, nll=-math.fsum(values) / len(values), tokens=len(values), best=tuple(tuple(b) for _, b in rows)
    )


def _row(http: httpx.Client, model: str, text: str) -> tuple[list[float], list[int]]:
    """Log-probabilities of a text's tokens but the first, and the best token id of each place (vLLM only)."""
    body: dict[str, Any] = {"model": model, "prompt": text, "temperature": 0.0}
    answer = http.post("/v1/completions", json={**body, "max_tokens": 1, "prompt_logprobs": 1})
    # A server that does not know the field may refuse it or ignore it.
    rows = None if answer.status_code in (400, 422) else _choice(answer).get("prompt_logprobs")
    if rows:
        return [_own(row) for row in rows[1:]], [_best(row) for row in rows[1:]]
    choice = _choice(http.post("/v1/completions", json={**body, "max_tokens": 0, "echo": True, "logprobs": 1}))
    values = (choice.get("logprobs") or {}).get("token_logprobs") or []
    return [_number(value) for value in values[1:]], []


def _choice(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != 200:
        raise ValueError(f"HTTP {answer.status_code}: {' '.join(answer.text.split())[:160]}")
    return dict(answer.json()["choices"][0])


def _own(row: dict[str, Any]) -> float:
    """The prompt's own token comes first in the row, before the best one."""
    return _number(next(iter(row.values()))["logprob"])


def _best(row: dict[str, Any]) -> int:
    return int(max(row, key=lambda key: _number(row[key]["logprob"])))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, httpx.HTTPError) else str(error) or "unknown answer"
