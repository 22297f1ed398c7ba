"""The server's /metrics page: token, draft and queue counters, scraped while streams run.

Names: vLLM (`vllm:...`, counters end in `_total`), SGLang (`sglang:...`; its generation counter moves when a request
ends, `realtime_tokens_total{mode="decode"}` as tokens leave), llama.cpp (`llamacpp:tokens_predicted_total`, moves at
the end of a request). Values of several engines (data parallel) are added.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from sweeper.core.windows_server import CounterSample
from sweeper.probes.priority import keep_time

_LINE = re.compile(r"^((?:vllm|sglang|llamacpp):\w+)(\{[^}]*\})? (\S+)", re.M)
_POSITION = re.compile(r'position="(\d+)"')
_MODE = re.compile(r'mode="(\w+)"')


def parse_metrics(text: str, when_s: float) -> CounterSample:
    """A Prometheus page as one sample. Counters that are not there stay None."""
    sums: dict[str, float] = defaultdict(float)
    positions: dict[int, float] = defaultdict(float)
    for match in _LINE.finditer(text):
        name, labels, value = match[1], match[2] or "", float(match[3])
        if name == "vllm:spec_decode_num_accepted_tokens_per_pos_total" and (at := _POSITION.search(labels)):
            positions[int(at[1])] += value
        elif name == "sglang:realtime_tokens_total":
            mode = _MODE.search(labels)
            sums[f"{name}/{mode[1] if mode else ''}"] += value
        else:
            sums[name] += value

    def first(*names: str) -> float | None:
        return next((sums[name] for name in names if name in sums), None)

    live = first("vllm:generation_tokens_total", "sglang:realtime_tokens_total/decode")
    late = first("sglang:generation_tokens_total", "llamacpp:tokens_predicted_total")
    return CounterSample(
        when_s=when_s,
        generated=live if live is not None else late,
        counts_on_finish=live is None,
        drafts=first("vllm:spec_decode_num_drafts_total"),
        draft_tokens=first("vllm:spec_decode_num_draft_tokens_total"),
        accepted=first("vllm:spec_decode_num_accepted_tokens_total"),
        per_position=tuple(positions[p] for p in sorted(positions)),
        running=first("vllm:num_requests_running", "sglang:num_running_reqs"),
        waiting=first("vllm:num_requests_waiting", "sglang:num_queue_reqs"),
        preemptions=first("vllm:num_preemptions_total", "sglang:num_retracted_reqs"),
        extra={k: v for k, v in sums.items() if k in ("sglang:spec_accept_length", "sglang:spec_accept_rate")},
    )


class Scraper:
    """Samples in the background between `start` and `stop`; `take` adds one now. Without metrics it stays empty."""

    def __init__(self, base_url: str, path: str | None, *, every_s: float = 1.0) -> None:
        self.base_url, self.path, self.every_s = base_url, path, every_s
        self.samples: list[CounterSample] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> CounterSample | None:
        if self.path is None:
            return None
        with self._lock:
            began = time.monotonic()
            text = fetch_text(self.base_url, self.path)
            if text is None:
                return None
            took = time.monotonic() - began
            sample = replace(parse_metrics(text, began + took / 2), took_s=took)
            self.samples.append(sample)
            return sample

    def start(self) -> None:
        if self.take() is not None:
            self._end.clear()
            self._thread = threading.Thread(target=self._loop, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def _loop(self) -> None:
        keep_time()
        while not self._end.wait(self.every_s):
            self.take()


def fetch_text(base_url: str, path: str, timeout_s: float = 5.0) -> str | None:
    """Body of a GET that answers 200; None otherwise."""
    status, body = get(base_url, path, timeout_s)
    return body.decode("utf-8", "replace") if status == 200 else None


def get(base_url: str, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """(status, body); status 0 when there is no HTTP server, body is then the reason."""
    return _ask("GET", base_url, path, None, (), timeout_s)


def post(
    base_url: str, path: str, body: bytes, headers: Sequence[str] = (), timeout_s: float = 30.0
) -> tuple[int, bytes]:
    """As `get`, with a JSON body; `headers` are complete header lines."""
    return _ask("POST", base_url, path, body, headers, timeout_s)


def _ask(
    method: str, base_url: str, path: str, body: bytes | None, headers: Sequence[str], timeout_s: float
) -> tuple[int, bytes]:
    parts = urlsplit(base_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    link = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    pairs = {name: value.strip() for name, _, value in (line.partition(":") for line in headers)}
    if body is not None:
        pairs["Content-Type"] = "application/json"
    try:
        link.request(method, parts.path.rstrip("/") + path, body, pairs)
        answer = link.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()
    finally:
        link.close()
