"""Ask a server for log-probabilities: of a given prompt (prefill kernels), and of what it generates (decode kernels).

Three dialects, tried in this order and remembered: vLLM's `prompt_logprobs` with token ids, SGLang's `/generate`, and
the plain OpenAI `echo` + `logprobs`. What a server cannot do is said, not skipped over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from sweeper.core.numerics import Top
from sweeper.probes.openai import RequestProblem

TOP_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Per token of a sequence: id, log-probability (None: not said), top-k. The first prompt token has none."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    tops: tuple[Top, ...]
    text: str = ""


class Scorer:
    """Blocking; thread-safe for `many`."""

    def __init__(self, base_url: str, model: str, *, timeout_s: float = 120.0, top_k: int = TOP_K) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            limits=httpx.Limits(max_connections=256),
            trust_env=False,
        )
        self._model, self._k = model, top_k
        self.dialect: str | None = None
        self.refusal: RequestProblem | None = None
        """What the server said to the last dialect, where `detect` found none."""

    def close(self) -> None:
        self._http.close()

    def detect(self, ids: list[int]) -> str | None:
        """The first dialect that scores `ids`; None where the server cannot score a prompt."""
        for name in ("vllm", "sglang", "openai"):
            try:
                scores = self._prompt(name, ids)
            except RequestProblem as problem:
                if self.refusal is None or (problem.status or 0) >= 500:
                    self.refusal = problem
                continue
            if any(value is not None for value in scores.logprobs):
                self.dialect = name
                return name
        return None

    def prompt(self, ids: list[int]) -> Scores:
        """Log-probabilities of the prompt's own tokens. Raises RequestProblem."""
        return self._prompt(self.dialect or "vllm", ids)

    def greedy(self, ids: list[int], tokens: int) -> Scores:
        """`tokens` greedy tokens with their log-probabilities. Raises RequestProblem."""
        if self.dialect == "sglang":
            return self._sglang(ids, tokens, start=len(ids))
        body = {
            "prompt": ids,
            "max_tokens": tokens,
            "temperature": 0.0,
            "logprobs": self._k,
            "ignore_eos": True,
            "return_tokens_as_token_ids": True,
        }
        return self._post_completion(body, generated=True)

    def many(self, jobs: list[list[int]], tokens: int, batch: int) -> list[Scores | RequestProblem]:
        """Greedy for every prompt, `batch` at a time in flight; a request that fails is an item of the answer."""
        return self._each(lambda ids: self.greedy(ids, tokens), jobs, batch)

    def prompts(self, jobs: list[list[int]], batch: int) -> list[Scores | RequestProblem]:
        """`prompt` for every job, `batch` at a time."""
        return self._each(self.prompt, jobs, batch)

    @staticmethod
    def _each(ask: Callable[[list[int]], Scores], jobs: list[list[int]], batch: int) -> list[Scores | RequestProblem]:
        def one(ids: list[int]) -> Scores | RequestProblem:
            try:
                return ask(ids)
            except RequestProblem as problem:
                return problem

        with ThreadPoolExecutor(max_workers=batch) as pool:
            return list(pool.map(one, jobs))

    def _prompt(self, dialect: str, ids: list[int]) -> Scores:
        if dialect == "sglang":
            return self._sglang(ids, 0, start=0)
        if dialect == "vllm":
            return self._vllm_prompt(ids)
        body = {"prompt": ids, "max_tokens": 0, "echo": True, "temperature": 0.0, "logprobs": self._k}
        return self._post_completion(body, generated=False)

    def _vllm_prompt(self, ids: list[int]) -> Scores:
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": self._k}
        choice = self._choice("/v1/completions", {"model": self._model, **body})
        rows = choice.get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(ids):
            raise RequestProblem("the server sends no prompt_logprobs", status=200)
        logprobs: list[float | None] = []
        tops: list[Top] = []
        for token, row in zip(ids, rows, strict=True):
            entries = _entries(row)
            logprobs.append(entries.get(token))
            tops.append(_sorted(entries))
        return Scores(ids=tuple(ids), logprobs=tuple(logprobs), tops=tuple(tops))

    def _sglang(self, ids: list[int], tokens: int, *, start: int) -> Scores:
        body = {
            "input_ids": ids,
            "sampling_params": {"max_new_tokens": tokens, "temperature": 0.0, "ignore_eos": True},
            "return_logprob": True,
            "logprob_start_len": start if not tokens else -1,
            "top_logprobs_num": self._k,
        }
        answer = self._json("/generate", body)
        meta = answer.get("meta_info") or {}
        kind = "output" if tokens else "input"
        rows, top_rows = meta.get(f"{kind}_token_logprobs"), meta.get(f"{kind}_top_logprobs") or []
        if not isinstance(rows, list) or not rows:
            raise RequestProblem("the server sends no token log-probabilities", status=200)
        tops = [_sorted({int(t): _number(v) for v, t, *_ in row or []}) for row in top_rows]
        tops += [()] * (len(rows) - len(tops))
        values = tuple(None if row[0] is None else _number(row[0]) for row in rows)
        return Scores(
            ids=tuple(int(row[1]) for row in rows),
            logprobs=values,
            tops=tuple(tops),
            text=str(answer.get("text") or ""),
        )

    def _post_completion(self, body: dict[str, Any], *, generated: bool) -> Scores:
        choice = self._choice("/v1/completions", {"model": self._model, **body})
        block = choice.get("logprobs") or {}
        names, values = block.get("tokens") or [], block.get("token_logprobs") or []
        if not names or len(names) != len(values):
            raise RequestProblem("the server sends no log-probabilities with its completions", status=200)
        ids = [_token_id(name) for name in names]
        if any(token is None for token in ids):
            if generated:
                raise RequestProblem("the server names tokens by text only, not by id", status=200)
            ids = list(body["prompt"])[: len(names)]
        tops = [
            _sorted({t: _number(v) for name, v in (row or {}).items() if (t := _token_id(name)) is not None})
            for row in block.get("top_logprobs") or [None] * len(names)
        ]
        return Scores(
            ids=tuple(token for token in ids if token is not None),
            # Serialisers write NaN as null; only an echoed prompt's first token has a right to be null.
            logprobs=tuple(None if value is None and not generated else _number(value) for value in values),
            tops=tuple(tops),
            text=str(choice.get("text") or ""),
        )

    def _choice(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(self._json(route, body)["choices"][0])
        except (KeyError, IndexError, TypeError, ValueError):
            raise RequestProblem(f"{route}: the answer holds no choice", status=200) from None

    def _json(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._http.post(route, json=body)
        except httpx.HTTPError as error:
            raise RequestProblem(f"{route}: {type(error).__name__}: {error or 'no answer'}") from None
        if answer.status_code != 200:
            raise RequestProblem(f"{route}: HTTP {answer.status_code}: {answer.text[:200]}", status=answer.status_code)
        try:
            return dict(answer.json())
        except (ValueError, TypeError):
            # A server that writes NaN into JSON breaks strict parsers; that is a finding, not an accident.
            nan = "nan" in answer.text.lower()
            raise RequestProblem(f"{route}: {'NaN in' if nan else 'no'} JSON: {answer.text[:120]!r}") from None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _entries(row: Any) -> dict[int, float]:
    """One row of vLLM's prompt_logprobs: {token id: {"logprob": x}}. Raises RequestProblem for another shape."""
    try:
        return {int(key): _number(value["logprob"]) for key, value in (row or {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise RequestProblem("the server's prompt_logprobs have an unknown shape", status=200) from None


def says_nan(problem: RequestProblem) -> bool:
    """Whether an error is a NaN that strict JSON could not carry (Starlette's words, and a bare NaN in the body)."""
    text = problem.message.lower()
    return "not json compliant" in text or "nan in json" in text


def _sorted(entries: dict[int, float]) -> Top:
    return tuple(sorted(entries.items(), key=lambda item: -item[1]))


def _token_id(name: Any) -> int | None:
    text = str(name)
    digits = text.removeprefix("token_id:")
    return int(digits) if text.startswith("token_id:") and digits.isdigit() else None
