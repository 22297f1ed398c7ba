"""Arrivals of a simulated server of known speed: ours within 1 %, and what other tools' formulas make of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sweeper.core.windows import StreamTrace, sustained_window
from sweeper.core.windows_rivals import (
    chunk_peak,
    inverse_chunk_itl,
    inverse_guidellm_tpot,
    inverse_tpot,
    llama_benchy,
    output_throughput,
    requested_throughput,
)


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "load_formulas" / "simulation.py"
    spec = importlib.util.spec_from_file_location("load_formulas_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sim = _load()


def ours(traces: list[StreamTrace], concurrency: int) -> float:
    window = sustained_window(traces, concurrency)
    assert window is not None
    return window.tokens(traces) / window.seconds


@pytest.mark.parametrize("name", list(sim.scenarios()))
def test_ours_is_within_one_percent_of_the_truth(name: str) -> None:
    server, concurrency, lengths = sim.scenarios()[name]
    traces = sim.run(server, concurrency=concurrency, lengths=lengths)
    assert ours(traces, concurrency) == pytest.approx(server.per_stream * concurrency, rel=0.01)


def test_a_slow_ramp_does_not_change_our_figure() -> None:
    server = sim.Server(prefill_s=0.05, step_s=0.03)
    traces = sim.run(server, concurrency=8, lengths=[1500] * 8, arrivals=[0.5 * i for i in range(8)])
    assert ours(traces, 8) == pytest.approx(8 * server.per_stream, rel=0.01)
    assert output_throughput(traces) < 0.95 * 8 * server.per_stream


def test_a_straggler_and_the_drain_do_not_change_our_figure() -> None:
    server = sim.Server(prefill_s=0.05, step_s=0.03)
    traces = sim.run(server, concurrency=8, lengths=[600] * 7 + [3000])
    assert ours(traces, 8) == pytest.approx(8 * server.per_stream, rel=0.01)
    assert output_throughput(traces) < 0.5 * 8 * server.per_stream
    assert llama_benchy(traces) < 0.5 * 8 * server.per_stream


def test_restarted_streams_of_mixed_length_do_not_change_our_figure() -> None:
    server = sim.Server(prefill_s=0.2, step_s=0.03)
    lengths = [200 + 37 * (i % 11) for i in range(64)]
    traces = sim.run(server, concurrency=8, lengths=lengths)
    assert ours(traces, 8) == pytest.approx(8 * server.per_stream, rel=0.01)


def test_output_throughput_of_others_loses_prefill_and_drain() -> None:
    server, concurrency, lengths = sim.scenarios()["C=64, one wave"]
    traces = sim.run(server, concurrency=concurrency, lengths=lengths)
    assert output_throughput(traces) < 0.75 * concurrency * server.per_stream


def test_chunks_counted_as_tokens_are_short_by_the_acceptance_length() -> None:
    server, concurrency, lengths = sim.scenarios()["C=1, 4 requests"]
    traces = sim.run(server, concurrency=concurrency, lengths=lengths)
    assert inverse_chunk_itl(traces) == pytest.approx(server.per_stream / 2.8, rel=0.01)
    assert chunk_peak(traces) == pytest.approx(server.per_stream / 2.8, rel=0.02)


def test_time_per_output_token_with_the_first_wait_inside_is_too_long() -> None:
    server, concurrency, lengths = sim.scenarios()["C=1, 4 requests"]
    traces = sim.run(server, concurrency=concurrency, lengths=lengths)
    assert inverse_tpot(traces) == pytest.approx(server.per_stream, rel=0.01)
    assert inverse_guidellm_tpot(traces) < 0.75 * server.per_stream


def test_requested_length_doubles_the_rate_of_streams_that_end_early() -> None:
    trace = StreamTrace(sent_s=0, stamps=[1.0, 2.0], totals=[1, 50], ended_s=2.0, requested=100, finish="stop")
    assert requested_throughput([trace]) == 2 * output_throughput([trace])
    assert trace.ended_early
