"""A server with canned answers for tests of checks: it knows a golden file by heart and can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sweeper.canary.golden import TOLERANCES, Case, GoldenFile

VOCAB = 64
Answer = tuple[int, Any]
"""HTTP status and body: a dict is written as JSON, a str as it is."""


def golden(quant: str = "bf16", *, text: bool = False) -> GoldenFile:
    """Four cases in which token t is followed by t + 1 with probability 0.9."""
    cases = []
    for number in range(4):
        ids = [(10 * number + place) % VOCAB for place in range(24)]
        after = [(ids[-1] + 1 + place) % VOCAB for place in range(24)]
        cases.append(
            Case(
                id=f"case-{number}", prompt=f"case {number}" if text else None, prompt_ids=ids,
                prompt_logprobs=[None, *[-0.1] * 23], prompt_top=[None, *[top(token) for token in ids[1:]]],
                greedy_ids=after, greedy_logprobs=[-0.1] * 24, greedy_top=[top(token) for token in after],
                greedy_text="one two three four five six seven eight nine ten" if text else None,
            )
        )  # fmt: skip
    return GoldenFile(
        schema=1, served_name="fake", quant=quant, model_type="qwen3_moe", seed=0, vocab_size=VOCAB, top_k=3,
        reference="none", versions={}, tolerance=TOLERANCES[quant], mean_nll=0.1, uniform_nll=4.16, cases=cases,
    )  # fmt: skip


def top(token: int) -> list[tuple[int, float]]:
    return [(token, -0.1), ((token + 7) % VOCAB, -3.0), ((token + 9) % VOCAB, -4.0)]


def vllm(body: dict[str, Any]) -> Answer:
    """A healthy vLLM."""
    ids = body["prompt"]
    choice: dict[str, Any] = {"text": "one two three four five six seven", "finish_reason": "length"}
    if isinstance(ids, str):
        return 200, {"choices": [choice], "usage": {"completion_tokens": 7}}
    if body.get("prompt_logprobs") is not None:
        rows = [{str(t): {"logprob": v} for t, v in top(token)} for token in ids[1:]]
        choice["prompt_logprobs"] = [None, *rows]
    made = [(ids[-1] + 1 + place) % VOCAB for place in range(body["max_tokens"])]
    choice["logprobs"] = {
        "tokens": [f"token_id:{token}" for token in made],
        "token_logprobs": [-0.1] * len(made),
        "top_logprobs": [{f"token_id:{t}": v for t, v in top(token)} for token in made],
    }
    return 200, {"choices": [choice]}


@contextmanager
def served(answer: Callable[[str, dict[str, Any]], Answer], models: tuple[str, ...] = ("fake",)) -> Iterator[str]:
    """Base URL of a server that answers POST (route, body) with `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*answer(self.path, body))

        def _send(self, status: int, content: Any) -> None:
            raw = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
