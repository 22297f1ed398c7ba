"""The reference server: /v1/models and /v1/completions over HTTP, answering as vLLM does.

Prompts are token ids. `prompt_logprobs`, `logprobs`, `return_tokens_as_token_ids` and `ignore_eos` are understood.
NaN is written as the literal that Python's json writes, or answered with HTTP 500, as engines do one or the other.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.check_faults.engine import Answer, Engine, Job
from benchmarks.check_faults.model import Model

NAME = "reference"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions":
            self._answer({"error": "no such route"}, 404)
            return
        scored = body.get("prompt_logprobs")
        job = Job(
            ids=body["prompt"],
            tokens=int(body.get("max_tokens", 16)),
            top=int(scored or body.get("logprobs") or 1),
            score_prompt=scored is not None,
        )
        found = self.server.engine.submit(job)
        if self.server.strict and _has_nan(found):
            self._answer({"error": {"message": "Out of range float values are not JSON compliant: nan"}}, 500)
            return
        self._answer({"object": "text_completion", "model": NAME, "choices": [_choice(found)]})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        """Silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    engine: Engine
    strict: bool


def _has_nan(answer: Answer) -> bool:
    rows = [row for row in (*answer.prompt, *answer.generated) if row]
    return any(math.isnan(value) for _, value, _ in rows)


def _choice(answer: Answer) -> dict[str, Any]:
    rows = answer.generated
    choice: dict[str, Any] = {
        "index": 0,
        "text": " ".join(f"w{token}" for token, _, _ in rows),
        "finish_reason": "length",
        "logprobs": {
            "tokens": [f"token_id:{token}" for token, _, _ in rows],
            "token_logprobs": [value for _, value, _ in rows],
            "top_logprobs": [{f"token_id:{t}": v for t, v in top} for _, _, top in rows],
        },
    }
    if answer.prompt:
        choice["prompt_logprobs"] = [None if row is None else _entry(row) for row in answer.prompt]
    return choice


def _entry(row: tuple[int, float, list[tuple[int, float]]]) -> dict[str, dict[str, float]]:
    token, value, top = row
    return {str(t): {"logprob": v} for t, v in [*top, (token, value)]}


@contextmanager
def serving(model: Model, *, seed: int = 0, strict: bool = False) -> Iterator[str]:
    """A running server on a free loopback port; yields its base URL."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.engine, server.strict = Engine(model, seed), strict
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        server.engine.close()
