"""The whole client against a scripted server: rates, traps, failures, counters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
from servers.scripted import ScriptedServer

from sweeper.core.errors import EnvironmentNotReady, SweeperError, UsageError
from sweeper.core.points import DecodePoint, Energy
from sweeper.core.presets import runs_of
from sweeper.core.values import Workload
from sweeper.core.windows_json import bench_object
from sweeper.probes.load.counters import parse_metrics
from sweeper.probes.load.measure import LoadOptions, measure
from sweeper.probes.load.prompts import kinds, prompt

Start = Callable[..., ScriptedServer]
SHORT = Workload(isl=40, osl=60, concurrency=(4,), warmup_s=0.0)


def point(server: ScriptedServer, workload: Workload = SHORT, **options: object) -> DecodePoint:
    result = measure(server.url, None, workload, options=LoadOptions(scrape_s=0.1, **options))  # type: ignore[arg-type]
    assert len(result.points) == 1
    return result.points[0]


def paced(server: ScriptedServer, workload: Workload = SHORT, **options: object) -> DecodePoint:
    """The point of a run in which the server kept its script; on a machine that is busy elsewhere it falls behind."""
    for _ in range(5):
        server.tally.late_s = 0.0
        found = point(server, workload, **options)
        if server.tally.late_s < 0.02:
            break
    return found


def test_the_rate_of_the_script_comes_back(scripted: Start) -> None:
    found = paced(scripted(rate=150))
    assert found.decode_tok_s_per_stream == pytest.approx(150, rel=0.15)
    assert found.tokens_source == "usage"
    assert found.invalid == ()
    assert found.errors == ()
    assert found.isl == 40
    assert found.osl == 60
    assert found.server_tok_s == pytest.approx(600, rel=0.2)
    assert found.server_difference is not None
    assert abs(found.server_difference) < 0.1
    assert found.energy is not None
    assert found.energy.why == "no meter"


def test_several_tokens_in_a_chunk_change_the_gap_and_not_the_rate(scripted: Start) -> None:
    found = paced(scripted(rate=150, tokens_per_chunk=3, draft_tokens=3))
    assert found.decode_tok_s_per_stream == pytest.approx(150, rel=0.15)
    assert found.itl_ms.mean == pytest.approx(1000 / 150, rel=0.15)
    assert found.chunk_gap_ms.mean == pytest.approx(3000 / 150, rel=0.15)
    assert found.acceptance is not None
    assert found.acceptance.length == pytest.approx(3.0)
    assert found.acceptance.rate == pytest.approx(2 / 3)


def test_a_role_only_first_chunk_is_not_the_first_token(scripted: Start) -> None:
    found = point(scripted(ttft=0.1, rate=300), chat=True)
    assert found.ttft_ms.p50 is not None
    assert found.ttft_ms.p50 > 95


def test_reasoning_is_output(scripted: Start) -> None:
    found = paced(scripted(reasoning=20, usage="final", token_ids=False, rate=300), chat=True)
    assert found.requests == 4
    assert found.tokens_source == "final_usage"
    assert found.decode_tok_s_per_stream == pytest.approx(300, rel=0.15)
    assert found.invalid == ()
    assert not bench_object(found)["tokens_exact"]


def test_streams_that_end_early_are_counted_as_they_are(scripted: Start) -> None:
    found = paced(scripted(early_stop=30, rate=200))
    assert found.decode_tok_s_per_stream == pytest.approx(200, rel=0.15)
    assert found.osl == 30
    assert any("ended early" in why for why in found.invalid)


def test_two_words_a_token_do_not_double_the_count(scripted: Start) -> None:
    found = paced(scripted(words_per_token=2.0, rate=200))
    assert found.decode_tok_s_per_stream == pytest.approx(200, rel=0.15)


def test_a_server_without_counts_per_chunk_is_asked_for_token_ids(scripted: Start) -> None:
    found = paced(scripted(usage="final", rate=200))
    assert found.tokens_source == "token_ids"
    assert found.decode_tok_s_per_stream == pytest.approx(200, rel=0.15)


def test_a_server_that_never_counts_has_no_rate(scripted: Start) -> None:
    found = point(scripted(usage="none", token_ids=False, rate=200, metrics="none"))
    assert found.decode_tok_s is None
    assert found.tokens_source == "chunks"


@pytest.mark.parametrize("metrics", ["vllm", "sglang"])
def test_a_server_that_counts_on_its_metrics_page_only_gets_a_flagged_rate(scripted: Start, metrics: str) -> None:
    server = scripted(usage="none", token_ids=False, rate=200, tokens_per_chunk=3, metrics=metrics)
    found = paced(server, dataclasses.replace(SHORT, osl=90, window_s=0.1))
    assert found.tokens_source == "server_counter"
    assert found.decode_tok_s_per_stream == pytest.approx(200, rel=0.15)
    assert found.server_tok_s is None
    assert found.osl == 90
    shown = bench_object(found)
    assert (shown["tokens_source"], shown["tokens_exact"]) == ("server_counter", False)
    assert "counter of all requests" in shown["tokens_flag"]


def test_a_counter_that_moved_by_more_than_was_asked_counts_nothing(scripted: Start) -> None:
    found = point(scripted(usage="none", token_ids=False, rate=200, metrics_factor=1.1))
    assert (found.tokens_source, found.decode_tok_s) == ("chunks", None)


def test_fields_that_a_server_refuses_are_left_out(scripted: Start) -> None:
    server = scripted(reject_fields=("ignore_eos", "return_token_ids"), rate=300)
    found = point(server)
    assert found.tokens_source == "final_usage"
    assert "ignore_eos" not in server.tally.requests[-1]["asked"]
    assert '"eos_token_id": -1' in server.tally.requests[-1]["asked"]["generation_config"]


def test_an_error_event_inside_200_fails_the_stream(scripted: Start) -> None:
    found = point(scripted(error_after=10, fault_skip=3, fault_every=4, rate=300))
    assert found.errors == ("1 stream: server error: scripted engine error",)
    assert any("streams failed" in why for why in found.invalid)


def test_a_disconnect_is_recorded(scripted: Start) -> None:
    found = point(scripted(disconnect_after=10, fault_skip=3, fault_every=4, rate=300))
    assert len(found.errors) == 1
    assert "connection" in found.errors[0]


def test_a_stall_ends_at_its_deadline(scripted: Start) -> None:
    found = point(scripted(stall_after=10, fault_skip=3, fault_every=4, rate=300), stall_s=0.4)
    assert found.errors == ("1 stream: stalled: nothing for 0.4 s",)


def test_a_lying_counter_makes_the_point_invalid(scripted: Start) -> None:
    found = point(scripted(metrics_factor=1.1, rate=200))
    assert any("more than 2 %" in why for why in found.invalid)


def test_no_metrics_page_leaves_the_cross_check_unknown(scripted: Start) -> None:
    found = point(scripted(metrics="none", rate=300))
    assert found.server_tok_s is None
    assert found.invalid == ()


def test_prompts_from_the_cache_are_noticed(scripted: Start) -> None:
    found = point(scripted(cached_tokens=32, rate=300))
    assert any("prefix cache" in why for why in found.invalid)


def test_a_closed_loop_keeps_the_number_of_live_streams(scripted: Start) -> None:
    server = scripted(rate=400, ttft=0.08)
    found = point(server, dataclasses.replace(SHORT, requests=12, osl=30))
    assert found.requests == 12
    assert server.tally.peak_running == 4
    assert found.serving_tok_s is not None
    assert found.decode_tok_s is not None
    assert found.decode_tok_s > found.serving_tok_s


def test_waves_wait_for_their_slowest(scripted: Start) -> None:
    server = scripted(rate=400, ttft=0.01)
    point(server, dataclasses.replace(SHORT, requests=8, osl=30), shape="waves")
    waves = [r for r in server.tally.requests if r["max_tokens"] == 30]
    assert min(r["arrived_s"] for r in waves[4:]) >= max(r["ended_s"] for r in waves[:4]) - 0.005


def test_an_open_loop_of_fewer_requests_than_client_processes_is_sent(scripted: Start) -> None:
    workload = dataclasses.replace(SHORT, requests=1)
    assert point(scripted(rate=400), workload, rate=50.0, processes=2).requests == 1


def test_an_open_loop_sends_when_it_is_time_and_has_no_common_window(scripted: Start) -> None:
    server = scripted(rate=400, ttft=0.01)
    found = point(server, dataclasses.replace(SHORT, requests=10, osl=20, concurrency=(1,)), rate=50.0)
    assert found.requests == 10
    assert found.decode_tok_s is None
    assert found.serving_tok_s is not None
    assert found.invalid == ()
    assert (found.rate, bench_object(found)["rate"], found.prefill_tok_s) == (50.0, 50.0, None)
    assert point(server).rate is None


def test_output_grows_until_it_outlasts_the_prefill_of_the_others(scripted: Start) -> None:
    server = scripted(rate=300, ttft=0.0, prefill_s_per_token=0.004, serial_prefill=True)
    found = point(server)
    assert found.window_s is not None
    assert found.osl is not None
    assert found.osl > 60


def test_a_server_without_batching_has_no_common_window_and_is_named(scripted: Start) -> None:
    found = point(scripted(serial=True, rate=500, ttft=0.01), dataclasses.replace(SHORT, concurrency=(2,)))
    assert found.decode_tok_s is None
    assert any("no batching" in why for why in found.invalid)


def test_several_client_processes_make_one_point(scripted: Start) -> None:
    found = paced(scripted(rate=100), processes=2)
    assert found.requests == 4
    assert found.decode_tok_s == pytest.approx(400, rel=0.15)


def test_a_full_window_cuts_the_streams(scripted: Start) -> None:
    server = scripted(rate=200)
    found = point(server, dataclasses.replace(SHORT, osl=5000, window_s=0.4))
    assert found.window_s == pytest.approx(0.4, abs=0.4)
    assert found.serving_tok_s is None
    assert found.osl == 5000


def test_prompts_differ_and_have_the_length_asked_for(scripted: Start) -> None:
    server = scripted(rate=1000, tokens_per_word=1.7)
    found = point(server, dataclasses.replace(SHORT, isl=300, osl=20))
    texts = [r["asked"]["prompt"] for r in server.tally.requests]
    assert len(set(texts)) == len(texts)
    assert found.isl == 300
    assert found.seed == 0


TOKENIZERS = [{"tokens_per_word": 1.0}, {"tokens_per_word": 2.3}, {"tokens_per_word": 4.0}, {"piece": 2.1}]


@pytest.mark.parametrize("isl", [40, 128, 4000])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("tokenize", [True, False])
def test_any_tokenizer_gets_prompts_of_the_length_asked_for(
    scripted: Start, tokenizer: dict[str, float], tokenize: bool, isl: int
) -> None:
    server = scripted(rate=2000, ttft=0.0, tokenize=tokenize, **tokenizer)
    found = point(server, dataclasses.replace(SHORT, isl=isl, osl=10, concurrency=(2,)))
    sent = [r["prompt_tokens"] for r in server.tally.requests[-2:]]
    assert [r["max_tokens"] for r in server.tally.requests[-2:]] == [10, 10]
    assert max(abs(got - isl) for got in sent) <= max(0.02 * isl, 2)
    assert found.isl == isl
    assert found.errors == ()


@pytest.mark.parametrize("tokenize", [True, False])
@pytest.mark.parametrize("isl", [300, 2048])
def test_the_measured_prefill_has_a_length_that_the_server_has_read_before(
    scripted: Start, isl: int, tokenize: bool
) -> None:
    """Kernels are compiled per prompt length; what differs by one token from the warm-up may compile in the window."""
    server = scripted(rate=4000, ttft=0.0, piece=3.7, tokenize=tokenize)
    measure(server.url, None, Workload(preset="context-ladder", isl=isl, osl=16, warmup_s=0.01))
    *before, measured = server.tally.requests
    assert measured["max_tokens"] == 16
    same = [one for one in before if one["prompt_tokens"] == measured["prompt_tokens"]]
    assert same
    assert all(one["asked"]["prompt"] != measured["asked"]["prompt"] for one in same)
    if tokenize:
        assert before[-1]["prompt_tokens"] == measured["prompt_tokens"] == isl


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("tokenize", [True, False])
def test_no_request_ever_exceeds_a_context_that_just_holds_the_rung(
    scripted: Start, tokenizer: dict[str, float], tokenize: bool
) -> None:
    server = scripted(rate=4000, ttft=0.0, context=4096 + 8, tokenize=tokenize, **tokenizer)
    found = point(server, dataclasses.replace(SHORT, isl=4096, osl=8, concurrency=(1,)))
    assert found.isl == 4096
    assert found.errors == ()
    assert max(r["prompt_tokens"] + r["max_tokens"] for r in server.tally.requests) <= 4104


def test_lengths_over_the_served_context_are_not_sent_and_the_point_says_so(scripted: Start) -> None:
    server = scripted(context=2048)
    found = point(server, dataclasses.replace(SHORT, isl=2000, osl=60, concurrency=(1,)))
    assert found.invalid == ("not sent: 2000 prompt and 60 output tokens exceed the served context of 2048 tokens",)
    assert (found.isl, found.osl, found.decode_tok_s) == (2000, 60, None)
    assert server.tally.requests == []


def test_what_was_asked_to_count_a_prompt_is_not_in_the_prefix_cache(scripted: Start) -> None:
    server = scripted(rate=2000, piece=2.0)
    point(server, dataclasses.replace(SHORT, isl=200, osl=10))
    starts = [r["asked"]["prompt"][:24] for r in server.tally.requests]
    measured = starts[-4:]
    assert not set(measured) & set(starts[:-4])


def test_a_server_with_another_models_list_is_believed_when_it_answers(scripted: Start) -> None:
    server = scripted(pinned=True, model="/models/mine", rate=1000)
    assert measure(server.url, "/models/mine", SHORT).points[0].invalid == ()
    assert measure(server.url, None, SHORT).points[0].invalid == ()
    with pytest.raises(UsageError, match="no model 'other'") as caught:
        measure(server.url, "other", SHORT)
    assert caught.value.hint == "It serves: /models/mine"


def test_usage_beside_the_finish_reason_is_the_final_count(scripted: Start) -> None:
    refused = ("ignore_eos", "return_token_ids")
    server = scripted(rate=300, usage="final", usage_in_last_choice=True, token_ids=False, reject_fields=refused)
    found = paced(server, dataclasses.replace(SHORT, window_s=0.05))
    assert found.tokens_source == "final_usage"
    assert found.osl == 60
    assert found.decode_tok_s_per_stream == pytest.approx(300, rel=0.15)


def test_measurements_that_share_a_server_share_no_prompt(scripted: Start) -> None:
    server = scripted(rate=2000)
    for concurrency in (1, 2):
        measure(server.url, None, dataclasses.replace(SHORT, osl=10, concurrency=(concurrency,)), seed=5)
    texts = [r["asked"]["prompt"] for r in server.tally.requests]
    assert len(set(texts)) == len(texts)


def test_a_meter_runs_in_the_window_and_its_joules_are_divided_by_tokens(scripted: Start) -> None:
    class Meter:
        calls: list[str] = []  # noqa: RUF012

        def start(self) -> None:
            self.calls.append("start")

        def stop(self) -> Energy:
            self.calls.append("stop")
            return Energy(joules=100.0, joules_per_1k_tokens=None, mean_w=50.0, power_share=0.5)

    server = scripted(rate=200)
    meter = Meter()
    found = measure(server.url, None, SHORT, meter=meter).points[0]
    assert meter.calls == ["start", "stop"]
    assert found.energy is not None
    assert found.energy.joules_per_1k_tokens == pytest.approx(100_000 / (found.tokens or 0), rel=0.1)


def test_energy_runs_are_kept_one_by_one(scripted: Start) -> None:
    work = Workload(preset="energy-e2e", isl=40, osl=20, requests=3, concurrency=(1,), warmup_s=0.0)
    result = measure(scripted(rate=500).url, None, work)
    assert [run.phase for run in result.runs] == ["e2e"] * 3
    assert [run.tokens for run in result.runs] == [20, 20, 20]
    assert result.runs[0].why == "no meter"
    assert runs_of(json.loads(json.dumps(result.requests))) == result.runs


def test_stored_repetitions_of_another_version_are_read_as_far_as_they_go(scripted: Start) -> None:
    workload = Workload(preset="energy-e2e", isl=20, osl=20, requests=2, warmup_s=0.0)
    rows = measure(scripted(rate=2000).url, None, workload).requests
    (first, *_), kept = [row for row in rows if "run" in row], runs_of(rows)
    assert runs_of([{"run": first["run"] | {"later": 1}}, {"run": {"phase": "e2e"}}, {"other": 1}]) == kept[:1]


def test_request_records_can_be_stored(scripted: Start) -> None:
    result = measure(scripted(rate=500).url, None, SHORT)
    assert len(json.loads(json.dumps(result.requests))) == 4
    assert result.requests[0]["totals"][-1] == 60
    assert len(result.requests[0]["stamps_us"]) == 60


def test_nobody_at_the_address() -> None:
    with pytest.raises(EnvironmentNotReady, match="no server at"):
        measure("http://127.0.0.1:9", None, SHORT)


def test_a_model_that_is_not_served_is_named_with_those_that_are(scripted: Start) -> None:
    with pytest.raises(UsageError, match="no model 'other'") as caught:
        measure(scripted().url, "other", SHORT)
    assert caught.value.hint == "It serves: scripted"


def test_a_server_that_does_not_stream_is_an_error(scripted: Start) -> None:
    with pytest.raises(SweeperError, match="does not stream"):
        measure(scripted(streaming=False, rate=1000).url, None, SHORT)


def test_a_server_that_answers_500_says_why(scripted: Start) -> None:
    with pytest.raises(SweeperError, match="HTTP 500: scripted failure"):
        measure(scripted(status=500).url, None, SHORT)


def test_counters_of_several_engines_are_added() -> None:
    page = (
        'vllm:generation_tokens_total{engine="0"} 10\nvllm:generation_tokens_total{engine="1"} 5.0\n'
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 7\n'
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",position="0"} 1\n'
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 2\n'
    )
    sample = parse_metrics(page, 1.0)
    assert sample.generated == 15
    assert sample.per_position == (8, 2)
    assert sample.drafts is None
    assert not sample.counts_on_finish


def test_sglangs_counter_of_ended_requests_is_not_taken_for_a_live_one() -> None:
    page = 'sglang:generation_tokens_total{model_name="m"} 10\n'
    assert parse_metrics(page, 1.0).counts_on_finish
    live = parse_metrics(page + 'sglang:realtime_tokens_total{mode="decode"} 12\n', 1.0)
    assert (live.generated, live.counts_on_finish) == (12, False)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("words", [4, 50, 23_000])
def test_prompts_are_natural_fresh_and_repeatable(kind: str, words: int) -> None:
    text = prompt(words, seed=3, index=1, kind=kind)
    assert len(text.split()) == words
    assert text == prompt(words, seed=3, index=1, kind=kind)
    assert text[:20] != prompt(words, seed=3, index=2, kind=kind)[:20]
    assert text[:20] != prompt(words, seed=4, index=1, kind=kind)[:20]
    assert "{Name}" not in text
