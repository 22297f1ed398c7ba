"""One greedy answer over the chat route, or the completions route where a server has no chat."""

from __future__ import annotations

import re
from typing import Any

import httpx

from sweeper.core.errors import EnvironmentNotReady
from sweeper.probes.openai import Client, RequestProblem

_TOO_MANY = re.compile(
    r"(?i)max_(?:completion_)?tokens|context (?:length|window)|maximum \w+ length|too (?:large|long)"
)
"""What servers say when prompt and answer do not fit their context together."""
LEAST_TOKENS = 16


class Asker:
    """Thread-safe after the first answer, which decides the route.

    A server whose context is shorter than prompt and answer together is asked for half as much until it agrees;
    `room` is then what the answers were given, None while nothing was cut.
    """

    def __init__(self, base_url: str, model: str | None, *, timeout_s: float = 600.0) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False)
        self._chat = True
        self.room: int | None = None
        self.model = model or _first_model(base_url)

    def close(self) -> None:
        self._http.close()

    def ask(self, prompt: str, max_tokens: int) -> str:
        """The text of a greedy answer. Raises RequestProblem."""
        tokens = min(max_tokens, self.room or max_tokens)
        while True:
            try:
                return self._ask(prompt, tokens)
            except RequestProblem as problem:
                if problem.status != 400 or not _TOO_MANY.search(problem.message) or tokens // 2 < LEAST_TOKENS:
                    raise
                tokens //= 2
                self.room = min(tokens, self.room or tokens)

    def _ask(self, prompt: str, max_tokens: int) -> str:
        if self._chat:
            try:
                return self._post(
                    "/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}, max_tokens
                )
            except RequestProblem as problem:
                # 400 is also what engines answer when the tokenizer has no chat template.
                if problem.status not in (400, 404, 405) or _TOO_MANY.search(problem.message):
                    raise
                self._chat = False
        return self._post("/v1/completions", {"prompt": prompt}, max_tokens)

    def _post(self, route: str, body: dict[str, Any], max_tokens: int) -> str:
        try:
            answer = self._http.post(
                route, json={"model": self.model, "max_tokens": max_tokens, "temperature": 0.0, "seed": 0, **body}
            )
        except httpx.HTTPError as error:
            raise RequestProblem(f"{route}: {type(error).__name__}: {error or 'no answer'}") from None
        if answer.status_code != 200:
            text = " ".join(answer.text.split())[:200]
            raise RequestProblem(f"{route}: HTTP {answer.status_code}: {text}", status=answer.status_code)
        try:
            choice = answer.json()["choices"][0]
            return str(choice.get("text") or (choice.get("message") or {}).get("content") or "")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise RequestProblem(f"{route}: the answer is not an OpenAI completion", status=200) from None


def _first_model(base_url: str) -> str:
    client = Client(base_url, "")
    try:
        models = client.served_models()
    finally:
        client.close()
    if not models:
        raise EnvironmentNotReady(
            f"{base_url} does not answer /v1/models", hint="Is the server up? Name the model with --model."
        )
    return models[0]
