"""Formulas over arrival traces. Pure; docs/measurement.md explains each and shows what other tools compute instead.

A trace is one request: the stamps at which events with tokens arrived and the tokens received by then. Seconds are
monotonic, of one machine.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sweeper.core.points import Quantiles

EXACT_SOURCES = frozenset({"usage", "token_ids"})
TOTAL_SOURCES = EXACT_SOURCES | {"final_usage"}
"""The length of a whole answer is exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTrace:
    """One request. `totals[i]` tokens had arrived at `stamps[i]`; both empty when no token came."""

    sent_s: float
    stamps: Sequence[float]
    totals: Sequence[float]
    ended_s: float
    requested: int
    source: str | None = "usage"
    """usage, token_ids: exact; final_usage: the last count spread over the chunks; server_counter: that of all streams
    together; tokenizer: counted by the client; chunks: not tokens."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    finish: str | None = None
    error: str | None = None
    cut: bool = False
    """Ended by us, while tokens were still coming."""
    speculative: Mapping[str, Any] | None = None
    step_s: float = field(init=False, default=0.0)
    """Median gap between events, from at most 101 of them."""

    def __post_init__(self) -> None:
        stamps = self.stamps
        stride = max(1, (len(stamps) - 1) // 101)
        gaps = sorted(stamps[i + 1] - stamps[i] for i in range(0, len(stamps) - 1, stride))
        object.__setattr__(self, "step_s", gaps[len(gaps) // 2] if gaps else 0.0)

    @property
    def tokens(self) -> float:
        return self.totals[-1] if self.totals else 0.0

    @property
    def decode_end_s(self) -> float:
        """Last token; for a stream that we cut, the cut."""
        return self.ended_s if self.cut or not self.stamps else self.stamps[-1]

    @property
    def ended_early(self) -> bool:
        """The server stopped by itself before the length that was asked for."""
        return not self.cut and self.error is None and self.tokens < self.requested and self.source in TOTAL_SOURCES


def trace_of(record: Mapping[str, Any]) -> StreamTrace:
    """From a record of the load client. Chunks get tokens when at least the final count is known."""
    totals: Sequence[float] = record["totals"]
    source = record["source"]
    if source in ("final_usage", "server_counter") and totals:
        scale = record["final_tokens"] / totals[-1]
        totals = [count * scale for count in totals]
    names = ("sent_s", "ended_s", "requested", "prompt_tokens", "cached_tokens", "finish", "error", "cut")
    rest = {name: record[name] for name in names}
    return StreamTrace(stamps=record["stamps"], totals=totals, source=source, speculative=record["speculative"], **rest)


def tokens_at(trace: StreamTrace, when_s: float) -> float:
    """Tokens made by `when_s`: an event's tokens count evenly over the step before it; 0 before the first event.

    The step is the stream's median gap, or the gap itself when that is shorter. So a stall (another stream's prefill)
    is a time in which nothing was made, and the tokens that follow it belong to the step that made them.
    """
    stamps, totals = trace.stamps, trace.totals
    after = bisect_right(stamps, when_s)
    if after == 0:
        return 0.0
    if after == len(stamps):
        return float(totals[-1])
    before_s, next_s = stamps[after - 1], stamps[after]
    step_s = min(trace.step_s, next_s - before_s) or next_s - before_s
    made = max(0.0, 1.0 - (next_s - when_s) / step_s)
    return totals[after - 1] + (totals[after] - totals[after - 1]) * made


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Stretches of time in which all streams decode, in order, not overlapping."""

    segments: tuple[tuple[float, float], ...]
    concurrency: int

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.segments)

    @property
    def opened_s(self) -> float:
        return self.segments[0][0]

    @property
    def closed_s(self) -> float:
        return self.segments[-1][1]

    def tokens(self, traces: Sequence[StreamTrace]) -> float:
        """Tokens of all traces inside the window."""
        return sum(tokens_at(t, end) - tokens_at(t, start) for start, end in self.segments for t in traces if t.stamps)


def sustained_window(
    traces: Sequence[StreamTrace], concurrency: int, *, longest_s: float | None = None
) -> Window | None:
    """The time in which `concurrency` streams are past their first token and none has ended; None if there is none.

    With one wave of streams: from the last first token to the first end. Where finished streams are replaced: every
    stretch in which all are decoding, so that prefill of newcomers stays outside. `longest_s` ends it early.
    """
    edges = [(t.stamps[0], 1) for t in traces if t.stamps] + [(t.decode_end_s, -1) for t in traces if t.stamps]
    # At one instant an end counts before a start: a slot handed over is not two streams.
    edges.sort()
    segments: list[tuple[float, float]] = []
    live, opened, left = 0, 0.0, longest_s if longest_s is not None else float("inf")
    for when, change in edges:
        if live >= concurrency and live + change < concurrency and when > opened and left > 0:
            segments.append((opened, min(when, opened + left)))
            left -= segments[-1][1] - opened
        if live < concurrency <= live + change:
            opened = when
        live += change
    return Window(segments=tuple(segments), concurrency=concurrency) if segments else None


def series(traces: Sequence[StreamTrace], window: Window, *, slices: int) -> tuple[float, ...]:
    """Tokens per second in equal slices between the window's first and last instant."""
    step = (window.closed_s - window.opened_s) / slices
    edges = [window.opened_s + step * i for i in range(slices + 1)]
    counts = [sum(tokens_at(t, edge) for t in traces) for edge in edges]
    return tuple((b - a) / step for a, b in pairwise(counts))


def stream_rates(traces: Sequence[StreamTrace], window: Window) -> tuple[float, ...]:
    """Tokens per second of each stream that decodes throughout the window (its spread shows unfair scheduling)."""
    start, end = window.opened_s, window.closed_s
    whole = [t for t in traces if t.stamps and t.stamps[0] <= start and t.decode_end_s >= end]
    return tuple((tokens_at(t, end) - tokens_at(t, start)) / (end - start) for t in whole) if end > start else ()


def ttft_s(trace: StreamTrace) -> float | None:
    """Request sent to the first event that carries a token."""
    return trace.stamps[0] - trace.sent_s if trace.stamps else None


def itl_s(trace: StreamTrace) -> float | None:
    """Seconds per token after the first event: (last - first) / (tokens - tokens of the first event).

    With one token in the first event this is (last - first) / (tokens - 1). Dividing by tokens - 1 when the first event
    brought several would credit tokens whose time lies before the interval.
    """
    after = trace.tokens - trace.totals[0] if trace.totals else 0
    return (trace.stamps[-1] - trace.stamps[0]) / after if after > 0 else None


def chunk_gaps_s(trace: StreamTrace) -> list[float]:
    """Seconds between events that carry tokens."""
    return [b - a for a, b in pairwise(trace.stamps)]


def quantiles_ms(values_s: Sequence[float]) -> Quantiles:
    """Mean, median, 99th percentile (nearest rank) of seconds, in milliseconds."""
    if not values_s:
        return Quantiles(mean=None, p50=None, p99=None)
    ordered = sorted(values_s)
    last = len(ordered) - 1
    middle = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
    worst = ordered[min(last, -(-99 * len(ordered) // 100) - 1)]
    return Quantiles(mean=1e3 * sum(ordered) / len(ordered), p50=1e3 * middle, p99=1e3 * worst)


def serving_tok_s(traces: Sequence[StreamTrace]) -> float | None:
    """All output tokens / (first request sent to last token). None when a stream was cut or tokens are not known."""
    if not traces or any(t.cut or t.source in (None, "chunks") for t in traces if t.error is None):
        return None
    ended = [t.stamps[-1] for t in traces if t.stamps]
    seconds = max(ended) - min(t.sent_s for t in traces) if ended else 0.0
    return sum(t.tokens for t in traces) / seconds if seconds > 0 else None


def prefill_tok_s(traces: Sequence[StreamTrace], concurrency: int) -> float | None:
    """Prompt tokens read per second: of the first wave, until its last first token; at concurrency 1, over all.

    Prompt tokens that the server says it had cached are not counted. None when it does not report prompt tokens.
    """
    chosen = list(traces) if concurrency == 1 else sorted(traces, key=lambda t: t.sent_s)[:concurrency]
    if not chosen or any(t.prompt_tokens is None or not t.stamps for t in chosen):
        return None
    read = sum((t.prompt_tokens or 0) - (t.cached_tokens or 0) for t in chosen)
    if concurrency == 1:
        seconds = sum(t.stamps[0] - t.sent_s for t in chosen)
    else:
        seconds = max(t.stamps[0] for t in chosen) - min(t.sent_s for t in chosen)
    return read / seconds if seconds > 0 else None


def decode_tok_s(traces: Sequence[StreamTrace], window: Window | None) -> float | None:
    """Sustained decode rate of all streams. None without a window, or when chunks could not be counted as tokens."""
    if window is None or any(t.source == "chunks" for t in traces):
        return None
    return window.tokens(traces) / window.seconds if window.seconds > 0 else None


def events_per_s(traces: Sequence[StreamTrace], window: Window) -> float:
    """Events per second and stream inside the window; engine steps per second when every step sends one event."""
    count = sum(
        bisect_left(t.stamps, end) - bisect_left(t.stamps, start) for start, end in window.segments for t in traces
    )
    return count / window.seconds / window.concurrency
