"""Measured points: the numbers one server gave at one concurrency. Definitions: docs/measurement.md.

`None` is unknown and prints `-`; a measured zero stays 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TokenSource = Literal["usage", "token_ids", "final_usage", "server_counter", "tokenizer", "chunks"]
"""How tokens were counted: server's cumulative usage, ids per chunk (both exact), its count at the end of a stream
spread over the chunks (flagged), the counter of all its tokens spread over the chunks of all streams (flagged), client
tokenizer (flagged), chunks (no rate)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Milliseconds."""

    mean: float | None
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """`rate` = accepted / drafted tokens; `length` = 1 + accepted / drafts; `per_position` from position 0."""

    rate: float | None
    length: float | None
    drafts: int | None = None
    draft_tokens: int | None = None
    accepted: int | None = None
    per_position: tuple[float, ...] = ()
    per_step: float | None = None
    """Tokens of one engine step. Below `length` where not every step drafts (n-grams); None: not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Over the measuring window, the cell's GPUs only. None: no meter, `why` says so."""

    joules: float | None
    joules_per_1k_tokens: float | None
    mean_w: float | None
    power_share: float | None
    """Mean power over the sum of the power limits."""
    idle_w: float | None = None
    state: str | None = None
    """fine, power cap, thermal, hardware slowdown, invalid."""
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePoint:
    """One concurrency of one workload on one launch. Field names are those of `sweeper bench --json`."""

    preset: str
    concurrency: int
    isl: int | None
    osl: int | None
    decode_tok_s: float | None
    """Sustained decode rate, all streams together, in the window in which all streams decode."""
    decode_tok_s_per_stream: float | None
    serving_tok_s: float | None
    prefill_tok_s: float | None
    ttft_ms: Quantiles
    itl_ms: Quantiles
    chunk_gap_ms: Quantiles
    tokens: int | None
    """Output tokens inside the window."""
    tokens_source: TokenSource | None
    window_s: float | None
    acceptance: Acceptance | None
    server_tok_s: float | None
    """The server's own token counter between the first and the last scrape inside the window."""
    client_cpu_s: float | None
    client_bound: bool
    requests: int = 0
    errors: tuple[str, ...] = ()
    """One line per distinct failure, e.g. `3 streams: server closed the connection mid-stream`."""
    invalid: tuple[str, ...] = ()
    """Recorded causes why this point must not be ranked; empty: valid."""
    energy: Energy | None = None
    series_tok_s: tuple[float, ...] = ()
    """Tokens per second in equal slices of the window."""
    stream_range_tok_s: tuple[float, float] | None = None
    """Slowest and fastest of the streams that decode throughout the window."""
    steps_s: float | None = None
    seed: int | None = None
    server_difference: float | None = None
    """(server - client) / client, both counted between the same two scrapes: `server_tok_s` against the client."""
    rate: float | None = None
    """Requests per second of an open loop, in which no number of streams is kept; None: a closed loop."""

    @property
    def tok_s(self) -> float | None:
        """What is ranked: the sustained decode rate, zero included; where that is unknown, the serving rate."""
        return self.decode_tok_s if self.decode_tok_s is not None else self.serving_tok_s

    @property
    def sent(self) -> bool:
        """Whether anything was asked of the server: a rung beyond its context is not."""
        return self.requests > 0 or self.tokens is not None or bool(self.errors)

    @property
    def against(self) -> str | None:
        """Every cause why the point has no place in a ranking, in one line; None: it holds."""
        if self.invalid:
            return "; ".join((*self.invalid, *self.errors))
        if self.tok_s is None:
            return f"tokens were not counted ({'; '.join(self.errors) or 'no usage from the server'})"
        return None
