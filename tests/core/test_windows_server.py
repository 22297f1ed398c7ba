"""Cross-check with the server's counters; acceptance from counters and from per-request figures; invalid points."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.core.points import Energy
from sweeper.core.windows import StreamTrace, sustained_window
from sweeper.core.windows_json import bench_object
from sweeper.core.windows_point import Asked, ClientCost, decode_point, energy_with_tokens
from sweeper.core.windows_server import (
    CounterSample,
    acceptance_from_counters,
    acceptance_from_requests,
    cross_check,
    cross_check_total,
    tokens_per_chunk,
)

IDLE = ClientCost(cpu_s=0.1, cpu_share=0.1, lag_p99_s=0.001)


def streams(n: int = 4, tokens: int = 1001, rate: float = 100.0, **more: object) -> list[StreamTrace]:
    stamps = [1.0 + i / rate for i in range(tokens)]
    fields = {"prompt_tokens": 128, "finish": "length", "requested": tokens} | more
    return [
        StreamTrace(sent_s=0.5, stamps=stamps, totals=range(1, tokens + 1), ended_s=stamps[-1], **fields)
        for _ in range(n)
    ]


def asked(concurrency: int = 4, osl: int = 1001) -> Asked:
    return Asked(preset="sustained-decode", concurrency=concurrency, isl=128, osl=osl, seed=7)


def counters(factor: float, **more: object) -> list[CounterSample]:
    return [CounterSample(when_s=t, generated=400.0 * factor * (t - 1.0), **more) for t in (2.0, 5.0, 9.0)]


@pytest.mark.parametrize(("factor", "ok"), [(1.0, True), (1.015, True), (0.985, True), (1.03, False), (0.5, False)])
def test_two_percent_of_disagreement_makes_a_point_invalid(factor: float, ok: bool) -> None:
    traces = streams()
    window = sustained_window(traces, 4)
    assert window is not None
    check = cross_check(counters(factor), traces, window)
    assert (check.invalid is None) == ok
    assert check.server_tok_s == pytest.approx(400 * factor)
    assert check.difference == pytest.approx(factor - 1, abs=1e-9)
    point = decode_point(asked(), traces, IDLE, counters(factor))
    assert (not point.invalid) == ok


def test_what_a_slow_scrape_leaves_open_is_no_disagreement() -> None:
    """A scrape of 0.3 s at 400 tok/s says when to within 120 tokens: 3 % of a window of 7 s, no more."""
    traces = streams()
    window = sustained_window(traces, 4)
    assert window is not None
    assert cross_check(counters(1.03), traces, window).invalid
    assert cross_check(counters(1.03, took_s=0.3), traces, window).invalid is None
    assert cross_check(counters(1.08, took_s=0.3), traces, window).invalid


def test_scrapes_too_slow_to_prove_anything_are_no_check_inside_the_window() -> None:
    traces = streams()
    window = sustained_window(traces, 4)
    assert window is not None
    slow = cross_check(counters(1.2, took_s=0.5), traces, window)
    assert (slow.server_tok_s, slow.invalid) == (None, None)


def test_a_counter_that_moves_only_at_the_end_says_nothing_inside_the_window() -> None:
    traces = streams()
    window = sustained_window(traces, 4)
    assert window is not None
    assert cross_check(counters(9.0, counts_on_finish=True), traces, window).server_tok_s is None


@pytest.mark.parametrize(
    ("gauges", "told"),
    [((4, 4, 4), False), ((1, 4, 4), False), ((3, 3, 4), True), ((2, 2), False), ((None, None, None), False)],
)
def test_a_server_that_works_on_fewer_streams_was_not_measured_at_that_concurrency(
    gauges: tuple[float | None, ...], told: bool
) -> None:
    samples = [CounterSample(when_s=3.0 + i, running=running) for i, running in enumerate(gauges)]
    found = decode_point(asked(), streams(), IDLE, [CounterSample(when_s=0.0, running=0.0), *samples])
    assert found.invalid == (("the server worked on 3 of 4 streams at a time (its own gauge)",) if told else ())


def test_the_counter_counts_streams_that_nobody_else_counted() -> None:
    chunks = streams(tokens=101, requested=300, source="chunks")
    around = [CounterSample(when_s=0.0, generated=50.0), CounterSample(when_s=9.0, generated=50.0 + 4 * 300)]
    assert tokens_per_chunk(around, chunks, 4) == pytest.approx(4 * 300 / (4 * 101))


@pytest.mark.parametrize(
    ("change", "sample"),
    [
        ({"cut": True}, {}),
        ({"error": "server closed the connection"}, {}),
        ({"source": "final_usage"}, {}),
        ({}, {"generated": 380.0}),
        ({}, {"generated": 1300.0}),
        ({}, {"generated": None}),
        ({}, {"when_s": 1.5}),
        ({}, {"running": 5.0}),
    ],
)
def test_a_counter_that_may_have_counted_something_else_counts_nothing(
    change: dict[str, object], sample: dict[str, float]
) -> None:
    chunks = streams(tokens=101, **({"requested": 300, "source": "chunks"} | change))
    after = CounterSample(**({"when_s": 9.0, "generated": 1200.0} | sample))
    assert tokens_per_chunk([CounterSample(when_s=0.0, generated=0.0), after], chunks, 4) is None


def test_the_whole_run_is_checked_when_every_stream_ended() -> None:
    before, after = CounterSample(when_s=0.0, generated=100.0), CounterSample(when_s=99.0, generated=100.0 + 4004)
    assert cross_check_total(before, after, streams()) is None
    other = CounterSample(when_s=99.0, generated=9000.0)
    assert "more than 2 %" in (cross_check_total(before, other, streams()) or "")
    assert cross_check_total(before, other, streams(cut=True)) is None


def test_acceptance_is_a_difference_of_counters() -> None:
    before = CounterSample(when_s=0, drafts=10, draft_tokens=30, accepted=20, per_position=(9.0, 8.0, 3.0))
    after = CounterSample(when_s=9, drafts=110, draft_tokens=330, accepted=200, per_position=(99.0, 78.0, 23.0))
    found = acceptance_from_counters(before, after)
    assert found is not None
    assert found.rate == pytest.approx(0.6)
    assert found.length == pytest.approx(2.8)
    assert found.per_position == pytest.approx((0.9, 0.7, 0.2))


def test_tokens_a_step_count_the_steps_without_drafts() -> None:
    before = CounterSample(when_s=0, generated=0, drafts=0, draft_tokens=0, accepted=0)
    after = CounterSample(when_s=9, generated=1536, drafts=161, draft_tokens=483, accepted=90)
    found = acceptance_from_counters(before, after)
    assert found is not None and found.per_step == pytest.approx(1536 / 1446)
    unknown = acceptance_from_counters(replace(before, generated=None), after)
    assert unknown is not None and unknown.per_step is None


def test_no_drafting_has_no_acceptance() -> None:
    none = CounterSample(when_s=0, generated=1)
    still = CounterSample(when_s=0, drafts=5, draft_tokens=5, accepted=5)
    assert acceptance_from_counters(none, none) is None
    assert acceptance_from_counters(still, still) is None


def test_zero_acceptance_is_zero_and_not_unknown() -> None:
    before = CounterSample(when_s=0, drafts=0, draft_tokens=0, accepted=0)
    found = acceptance_from_counters(before, CounterSample(when_s=1, drafts=50, draft_tokens=100, accepted=0))
    assert found is not None
    assert (found.rate, found.length) == (0.0, 1.0)


def test_acceptance_from_per_request_figures() -> None:
    figures = {
        "num_spec_steps": 10,
        "num_draft_tokens": 20,
        "num_accepted_draft_tokens": 12,
        "acceptance_histogram": [2, 4, 4],
    }
    found = acceptance_from_requests(streams(2, speculative=figures))
    assert found is not None
    assert found.rate == pytest.approx(0.6)
    assert found.length == pytest.approx(2.2)
    assert found.per_position == pytest.approx((0.8, 0.4))


def test_a_point_names_every_cause_against_it() -> None:
    traces = streams(3) + streams(1, tokens=900, requested=1001, finish="stop")
    point = decode_point(asked(), traces, ClientCost(cpu_s=9, cpu_share=0.95, lag_p99_s=0.001))
    assert any("ended early" in why for why in point.invalid)
    assert any("client-bound" in why for why in point.invalid)
    assert point.client_bound


def test_a_failed_stream_is_an_error_and_no_window_is_no_rate() -> None:
    traces = streams(3)
    traces += [StreamTrace(sent_s=0.5, stamps=(), totals=(), ended_s=1, requested=9, source=None, error="HTTP 500: no")]
    point = decode_point(asked(), traces, IDLE)
    assert point.decode_tok_s is None
    assert point.errors == ("1 stream: HTTP 500: no",)
    assert any("1 of 4 streams failed" in why for why in point.invalid)


def test_without_a_common_window_the_point_says_how_many_streams_there_were_at_most() -> None:
    first, second = streams(n=2), [replace(s, stamps=[t + 20 for t in s.stamps], ended_s=99.0) for s in streams(n=2)]
    found = decode_point(asked(), [*first, *second], IDLE)
    assert found.decode_tok_s is None
    assert "in which all 4 streams decoded: at most 2 did; the server takes no more at once" in found.invalid[0]


def test_chunks_are_not_tokens() -> None:
    point = decode_point(asked(), streams(source="chunks"), IDLE)
    assert point.decode_tok_s is None
    assert point.tokens is None
    assert point.itl_ms.mean is None
    assert point.chunk_gap_ms.mean == pytest.approx(10)


def test_the_prompt_length_that_was_measured_is_the_one_reported() -> None:
    assert decode_point(asked(), streams(prompt_tokens=129), IDLE).isl == 128
    point = decode_point(asked(), streams(prompt_tokens=82), IDLE)
    assert point.isl == 82
    assert any("128 were asked" in why for why in point.invalid)


@pytest.mark.parametrize("tokens", range(110, 147))
def test_a_length_is_that_asked_for_exactly_where_the_point_holds(tokens: int) -> None:
    """Else one of two equal runs is called 128 and the other 124, and they cannot be compared."""
    # Three of four prompts a token longer: a mean that is no whole number.
    traces = [replace(t, prompt_tokens=tokens + (i % 4 > 0)) for i, t in enumerate(streams())]
    point = decode_point(asked(), traces, IDLE)
    assert (point.isl == 128) == (not any("were asked" in why for why in point.invalid))


def test_prompts_out_of_the_prefix_cache_make_a_point_invalid() -> None:
    point = decode_point(asked(), streams(cached_tokens=64), IDLE)
    assert any("prefix cache" in why for why in point.invalid)


def test_joules_are_divided_by_the_tokens_of_the_metered_time() -> None:
    energy = Energy(joules=800.0, joules_per_1k_tokens=None, mean_w=400.0, power_share=0.6)
    assert energy_with_tokens(energy, streams(), 2.0, 4.0).joules_per_1k_tokens == pytest.approx(1000.0)


def test_the_json_object_has_the_documented_keys_in_their_order() -> None:
    found = bench_object(decode_point(asked(), streams(), IDLE))
    documented = (
        "schema preset concurrency isl osl decode_tok_s decode_tok_s_per_stream serving_tok_s prefill_tok_s ttft_ms "
        "itl_ms chunk_gap_ms tokens tokens_source window_s acceptance server_tok_s client_cpu_s client_bound"
    )
    assert list(found)[: len(documented.split())] == documented.split()
    assert found["decode_tok_s"] == pytest.approx(400)
    assert found["tokens_exact"] is True
    assert found["acceptance"] is None
