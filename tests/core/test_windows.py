"""The formulas: tokens, not chunks; the window in which all streams decode; interpolation at its edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.core.windows import (
    StreamTrace,
    Window,
    chunk_gaps_s,
    events_per_s,
    itl_s,
    prefill_tok_s,
    quantiles_ms,
    series,
    serving_tok_s,
    stream_rates,
    sustained_window,
    tokens_at,
    trace_of,
    ttft_s,
)


def stream(start: float, rate: float, tokens: int, *, sent: float = 0.0, k: int = 1, **more: object) -> StreamTrace:
    """`tokens` tokens in chunks of k, the first at `start`."""
    counts = [*range(k, tokens + 1, k)]
    counts += [tokens] if tokens % k else []
    stamps = [start + (n - k) / rate for n in counts]
    return StreamTrace(sent_s=sent, stamps=stamps, totals=counts, ended_s=stamps[-1], requested=tokens, **more)


def test_window_opens_with_the_last_first_token_and_closes_with_the_first_end() -> None:
    traces = [stream(1.0, 10, 100), stream(3.0, 10, 100), stream(2.0, 10, 30)]
    window = sustained_window(traces, 3)
    assert window is not None
    assert window.segments == ((3.0, pytest.approx(2.0 + 2.9)),)
    assert window.tokens(traces) / window.seconds == pytest.approx(30, rel=1e-9)


def test_no_window_when_the_first_stream_ends_before_the_last_begins() -> None:
    assert sustained_window([stream(1.0, 10, 10), stream(5.0, 10, 10)], 2) is None


def test_replaced_streams_add_stretches_and_prefill_of_newcomers_stays_outside() -> None:
    traces = [stream(0.0, 10, 101), stream(0.0, 10, 51), stream(8.0, 10, 51)]
    window = sustained_window(traces, 2)
    assert window is not None
    assert [tuple(round(x, 6) for x in s) for s in window.segments] == [(0.0, 5.0), (8.0, 10.0)]
    assert window.tokens(traces) == pytest.approx(2 * 70)


def test_the_longest_window_is_kept_across_stretches() -> None:
    traces = [stream(0.0, 10, 101), stream(0.0, 10, 51), stream(8.0, 10, 51)]
    window = sustained_window(traces, 2, longest_s=6.0)
    assert window is not None
    assert window.seconds == pytest.approx(6.0)
    assert window.closed_s == pytest.approx(9.0)


def test_a_cut_stream_decodes_until_the_cut() -> None:
    whole = stream(0.0, 10, 100)
    cut = StreamTrace(sent_s=0, stamps=[0.0, 1.0], totals=[1, 11], ended_s=4.0, requested=100, cut=True)
    window = sustained_window([whole, cut], 2)
    assert window is not None
    assert window.segments == ((0.0, 4.0),)


def test_tokens_between_events_arrive_evenly() -> None:
    trace = stream(1.0, 10, 31, k=10)
    assert tokens_at(trace, 0.5) == 0
    assert tokens_at(trace, 1.0) == 10
    assert tokens_at(trace, 1.5) == pytest.approx(15)
    assert tokens_at(trace, 99.0) == 31


@given(st.integers(1, 5), st.floats(0.1, 3.0), st.floats(5, 200), st.integers(40, 120))
def test_the_rate_of_regular_streams_is_exact_whatever_the_chunking(k: int, spread: float, rate: float, n: int) -> None:
    tokens = int(n + spread * rate * 2)
    traces = [stream(1.0, rate, tokens, k=k), stream(1.0 + spread, rate, tokens, k=k)]
    window = sustained_window(traces, 2)
    assert window is not None
    # A last chunk that is not full arrives early by less than a chunk.
    assert window.tokens(traces) / window.seconds == pytest.approx(2 * rate, rel=2 * k / n)


def test_itl_counts_tokens_after_the_first_event_and_the_chunk_gap_is_another_figure() -> None:
    trace = stream(0.05, 200, 300, k=3)
    assert itl_s(trace) == pytest.approx(0.005)
    assert sum(chunk_gaps_s(trace)) / len(chunk_gaps_s(trace)) == pytest.approx(0.015)


def test_one_token_has_a_ttft_and_no_itl() -> None:
    trace = stream(0.05, 10, 1)
    assert ttft_s(trace) == pytest.approx(0.05)
    assert itl_s(trace) is None


def test_a_stream_without_tokens_has_neither() -> None:
    trace = StreamTrace(sent_s=0, stamps=(), totals=(), ended_s=1.0, requested=8, source=None, error="x")
    assert ttft_s(trace) is None
    assert itl_s(trace) is None
    assert sustained_window([trace], 1) is None
    assert serving_tok_s([trace]) is None


def test_serving_rate_is_over_the_whole_run_and_unknown_when_streams_were_cut() -> None:
    assert serving_tok_s([stream(1.0, 10, 91), stream(5.0, 10, 51)]) == pytest.approx(142 / 10.0)
    assert serving_tok_s([stream(1.0, 10, 91, cut=True)]) is None


def test_prefill_rate_leaves_out_what_the_server_had_cached() -> None:
    one = stream(2.0, 10, 20, prompt_tokens=1000, cached_tokens=200)
    assert prefill_tok_s([one], 1) == pytest.approx(400)
    assert prefill_tok_s([stream(2.0, 10, 20)], 1) is None


def test_prefill_of_several_streams_runs_until_the_last_first_token() -> None:
    traces = [stream(1.0, 10, 99, prompt_tokens=500), stream(4.0, 10, 99, prompt_tokens=500)]
    assert prefill_tok_s(traces, 2) == pytest.approx(250)


def test_series_shows_a_server_that_slows_down() -> None:
    fast, slow = [0.1 * i for i in range(51)], [5.0 + 0.2 * i for i in range(1, 26)]
    trace = StreamTrace(sent_s=0, stamps=fast + slow, totals=range(1, 77), ended_s=10.0, requested=76)
    window = sustained_window([trace], 1)
    assert window is not None
    assert series([trace], window, slices=2) == (pytest.approx(10, rel=0.03), pytest.approx(5, rel=0.03))


def test_stream_rates_show_the_spread_between_streams() -> None:
    traces = [stream(0.0, 10, 101), stream(0.0, 20, 201)]
    window = Window(segments=((1.0, 9.0),), concurrency=2)
    assert stream_rates(traces, window) == (pytest.approx(10), pytest.approx(20))


def test_steps_per_second_count_events() -> None:
    traces = [stream(0.0, 30, 301, k=3), stream(0.0, 30, 301, k=3)]
    window = sustained_window(traces, 2)
    assert window is not None
    assert events_per_s(traces, window) == pytest.approx(10, rel=0.02)


def test_a_final_count_is_spread_over_the_chunks() -> None:
    record = dict.fromkeys(("prompt_tokens", "cached_tokens", "finish", "error", "speculative"))
    record |= {"sent_s": 0.0, "ended_s": 1.0, "requested": 30, "cut": False, "source": "final_usage"}
    trace = trace_of(record | {"stamps": [0.1, 0.2, 0.3], "totals": [1, 2, 3], "final_tokens": 30})
    assert list(trace.totals) == [10, 20, 30]


@pytest.mark.parametrize(
    ("source", "short"), [("usage", True), ("final_usage", True), ("tokenizer", False), ("chunks", False)]
)
def test_only_the_servers_count_can_call_a_stream_short(source: str, short: bool) -> None:
    trace = StreamTrace(sent_s=0, stamps=[1.0], totals=[5], ended_s=1.0, requested=9, source=source)
    assert trace.ended_early is short


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_quantiles_lie_between_the_extremes(values: list[float]) -> None:
    q = quantiles_ms(values)
    assert q.mean is not None
    assert q.p50 is not None
    assert q.p99 is not None
    low, high = 1e3 * min(values), 1e3 * max(values)
    assert all(low - 1e-6 <= v <= high + 1e-6 for v in (q.mean, q.p50, q.p99))


def test_no_values_have_no_quantiles() -> None:
    assert quantiles_ms([]).mean is None
    assert math.isclose(quantiles_ms([0.001, 0.003]).p50 or 0, 2.0)
