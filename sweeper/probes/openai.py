"""Short requests to an OpenAI-compatible server: health, one answer. Load generation lives in `probes/load`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from sweeper.core.errors import SweeperError

_NO_ROUTE = (404, 405, 501)


class RequestProblem(SweeperError):
    """A request came back wrong; the message says how. `status` is None when nothing was answered."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer. `tokens` from the server's usage, None where it sent none."""

    text: str
    tokens: int | None
    finish_reason: str | None


class Client:
    """Blocking client for a few requests. `timeout_s` bounds each of them."""

    def __init__(self, base_url: str, model: str, *, timeout_s: float = 120.0) -> None:
        # Loopback servers must not be reached through a proxy that the environment names.
        self._http = httpx.Client(base_url=base_url, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False)
        self._model = model
        self._chat = False

    def close(self) -> None:
        self._http.close()

    def healthy(self, path: str) -> bool:
        """Whether `path` answers 200; of a server that lacks the route, whether it lists its models."""
        status = self._status(path)
        return (self._status("/v1/models") if status in _NO_ROUTE else status) == 200

    def _status(self, path: str) -> int | None:
        try:
            return self._http.get(path, timeout=5.0).status_code
        except httpx.HTTPError:
            return None

    def served_models(self) -> list[str]:
        """Ids of GET /v1/models; empty where the route is missing."""
        try:
            answer = self._http.get("/v1/models", timeout=10.0)
            return [str(item["id"]) for item in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return []

    def complete(self, prompt: str, *, max_tokens: int, seed: int = 0) -> Completion:
        """One greedy answer; falls back to the chat route where completions do not exist.

        Raises RequestProblem with the server's own words.
        """
        if not self._chat:
            try:
                return self._ask("/v1/completions", {"prompt": prompt}, max_tokens, seed)
            except RequestProblem as problem:
                if problem.status not in (404, 405):
                    raise
                self._chat = True
        return self._ask("/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}, max_tokens, seed)

    def _ask(self, route: str, body: dict[str, Any], max_tokens: int, seed: int) -> Completion:
        full = {"model": self._model, "max_tokens": max_tokens, "temperature": 0.0, "seed": seed, **body}
        try:
            answer = self._http.post(route, json=full)
        except httpx.HTTPError as error:
            raise RequestProblem(f"{route}: {type(error).__name__}: {error or 'no answer'}") from None
        if answer.status_code != 200:
            text = " ".join(answer.text.split())[:300]
            raise RequestProblem(f"{route}: HTTP {answer.status_code}: {text}", status=answer.status_code)
        return _completion(route, answer)


def _completion(route: str, answer: httpx.Response) -> Completion:
    try:
        data = answer.json()
        if "error" in data and "choices" not in data:
            raise RequestProblem(f"{route}: {data['error']}", status=answer.status_code)
        choice = data["choices"][0]
        message = choice.get("message") or {}
        text = choice.get("text") or message.get("content") or message.get("reasoning_content") or ""
        usage = data.get("usage") or {}
        return Completion(text=text, tokens=usage.get("completion_tokens"), finish_reason=choice.get("finish_reason"))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise RequestProblem(f"{route}: the answer is not an OpenAI completion: {answer.text[:200]!r}") from None
