"""When a server counts as healthy: the two answers that follow are the proof, this is only the sign to ask for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sweeper.probes.openai import Client


@contextmanager
def server(statuses: Mapping[str, int]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.get(self.path, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


@pytest.mark.parametrize(
    ("statuses", "healthy"),
    [
        ({"/health": 200}, True),
        ({"/health": 503, "/v1/models": 200}, False),
        ({"/health": 500, "/v1/models": 200}, False),
        ({"/v1/models": 200}, True),
        ({"/v1/models": 503}, False),
        ({}, False),
    ],
)
def test_a_server_without_the_route_is_healthy_when_it_lists_its_models(
    statuses: dict[str, int], healthy: bool
) -> None:
    with server(statuses) as url:
        assert Client(url, "m").healthy("/health") is healthy


def test_where_nothing_listens_nothing_is_healthy() -> None:
    assert Client("http://127.0.0.1:9", "m").healthy("/health") is False
