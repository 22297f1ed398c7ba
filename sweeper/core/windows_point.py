"""Traces of one run to the point that is ranked, with every recorded cause why it must not be. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import cast

from sweeper.core.points import Acceptance, DecodePoint, Energy, TokenSource
from sweeper.core.values import Workload
from sweeper.core.windows import (
    StreamTrace,
    Window,
    chunk_gaps_s,
    decode_tok_s,
    events_per_s,
    itl_s,
    prefill_tok_s,
    quantiles_ms,
    series,
    serving_tok_s,
    stream_rates,
    sustained_window,
    tokens_at,
    ttft_s,
)
from sweeper.core.windows_server import (
    CounterSample,
    acceptance_from_counters,
    acceptance_from_requests,
    cross_check,
    cross_check_total,
    too_few_running,
)

MAX_CPU_SHARE = 0.8
"""Of one core; above it the client is the bottleneck (peers.md 3.4)."""
MAX_LAG_S = 0.020
LENGTH_TOLERANCE = 0.02
LENGTH_SLACK = 4
"""Mean prompt and output lengths within this share, or within so many tokens, are called by the requested length."""
SILENT_SHARE = 0.1
"""Of the window: a stream that said nothing for longer before the cut was not decoding."""
MIN_WINDOW_TOKENS = 8
"""Per stream; a shorter window is no rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCost:
    """What the measuring itself used: `cpu_share` of the busiest process, `lag_p99_s` of one turn of its loop.

    `wait_share`: of the time, ready to run while no core was free. A starved client looks idle by its CPU share alone.
    """

    cpu_s: float
    cpu_share: float
    lag_p99_s: float
    wait_share: float = 0.0

    @property
    def bound(self) -> bool:
        return self.cpu_share + self.wait_share > MAX_CPU_SHARE or self.lag_p99_s > MAX_LAG_S

    def why(self) -> str:
        said = (
            f"client-bound: {100 * self.cpu_share:.0f} % of a core, {100 * self.wait_share:.0f} % waiting for one, "
            f"loop turns of {1e3 * self.lag_p99_s:.0f} ms (p99)"
        )
        if self.wait_share > self.cpu_share:
            said += "; leave a core free, or let sweeper use real-time scheduling (root, or ulimit -r 1)"
        return said


UNCOUNTED = "tokens not counted: the server gives no count, and no tokenizer was named"
FLAGS = {
    "final_usage": "tokens counted by the server at the end of each stream and spread over its chunks",
    "server_counter": "tokens counted by the server's counter of all requests and spread over the chunks",
    "tokenizer": "tokens counted by the client's tokenizer, not by the server",
}


UNCHECKED = frozenset({"server_counter"})
"""What the counter counted cannot be checked against the counter."""


def source_flag(source: str | None) -> str | None:
    """What a reader must know of a count that is not exact; such points are ranked among their own kind only."""
    return FLAGS.get(source or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the run asked for."""

    preset: str
    concurrency: int
    isl: int
    osl: int
    seed: int
    rate: float | None = None
    """Requests per second of an open loop; None: a closed loop."""

    @property
    def open_loop(self) -> bool:
        return self.rate is not None


def decode_point(
    asked: Asked,
    traces: Sequence[StreamTrace],
    cost: ClientCost,
    samples: Sequence[CounterSample] = (),
    energy: Energy | None = None,
    machine_invalid: Sequence[str] = (),
) -> DecodePoint:
    """One run at one concurrency. Figures that could not be had are None, and `invalid` says why a rank must not be.

    `machine_invalid`: causes that the meter recorded (thermal or hardware slowdown, a foreign process).
    """
    window = None if asked.open_loop else sustained_window(traces, asked.concurrency)
    source = _source(traces)
    check = cross_check(samples, traces, window) if window and source not in UNCHECKED else None
    rate = decode_tok_s(traces, window)
    isl, osl = _isl(asked, traces), _osl(asked, traces)
    invalid = _why_invalid(asked, traces, window, source, isl)
    if check and check.invalid:
        invalid.append(check.invalid)
    elif len(samples) >= 2 and source not in UNCHECKED and (why := cross_check_total(samples[0], samples[-1], traces)):
        invalid.append(why)
    if window is not None and (why := too_few_running(samples, window)):
        invalid.append(why)
    if cost.bound:
        invalid.append(cost.why())
    invalid += machine_invalid
    acceptance = acceptance_of(samples, traces)
    return DecodePoint(
        preset=asked.preset,
        concurrency=asked.concurrency,
        isl=isl,
        osl=osl,
        decode_tok_s=rate,
        decode_tok_s_per_stream=rate / asked.concurrency if rate is not None else None,
        serving_tok_s=serving_tok_s(traces),
        # Requests of an open loop wait for each other's prefill: no stretch of time is that of reading.
        prefill_tok_s=None if asked.open_loop else prefill_tok_s(traces, asked.concurrency),
        ttft_ms=quantiles_ms([t for t in map(ttft_s, traces) if t is not None]),
        itl_ms=quantiles_ms([t for t in map(itl_s, traces) if t is not None] if source != "chunks" else []),
        chunk_gap_ms=quantiles_ms([gap for trace in traces for gap in chunk_gaps_s(trace)]),
        tokens=round(window.tokens(traces)) if window and source != "chunks" else None,
        tokens_source=cast("TokenSource | None", source),
        window_s=window.seconds if window else None,
        acceptance=acceptance,
        server_tok_s=check.server_tok_s if check else None,
        client_cpu_s=cost.cpu_s,
        client_bound=cost.bound,
        requests=len(traces),
        errors=error_lines(traces),
        invalid=tuple(invalid),
        energy=energy,
        stream_range_tok_s=_stream_range(traces, window) if window and source != "chunks" else None,
        series_tok_s=series(traces, window, slices=_slices(window)) if window and source != "chunks" else (),
        steps_s=events_per_s(traces, window) if window else None,
        seed=asked.seed,
        rate=asked.rate,
        server_difference=check.difference if check else None,
    )


def unmeasured(workload: Workload, seed: int, why: str) -> list[DecodePoint]:
    """Points of which nothing is known but why, one per concurrency."""
    nothing = ClientCost(cpu_s=0.0, cpu_share=0.0, lag_p99_s=0.0)
    isl, osl = workload.isl, workload.osl
    points = [
        decode_point(Asked(preset=workload.preset, concurrency=each, isl=isl, osl=osl, seed=seed), [], nothing)
        for each in workload.concurrency
    ]
    return [replace(point, isl=isl, osl=osl, client_cpu_s=None, invalid=(why,)) for point in points]


def acceptance_of(samples: Sequence[CounterSample], traces: Sequence[StreamTrace]) -> Acceptance | None:
    """From the counters over the run, else from per-request figures; None when nothing was drafted or said."""
    found = acceptance_from_counters(samples[0], samples[-1]) if len(samples) >= 2 else None
    return found or acceptance_from_requests(traces)


def error_lines(traces: Sequence[StreamTrace]) -> tuple[str, ...]:
    """One line per distinct failure, most frequent first."""
    return tuple(
        f"{count} stream{'s' if count > 1 else ''}: {text}"
        for text, count in Counter(t.error for t in traces if t.error).most_common()
    )


def energy_with_tokens(energy: Energy, traces: Sequence[StreamTrace], from_s: float, to_s: float) -> Energy:
    """Joules per 1,000 output tokens over the interval in which the meter ran."""
    tokens = sum(tokens_at(t, to_s) - tokens_at(t, from_s) for t in traces if t.stamps)
    if energy.joules is None or tokens <= 0:
        return energy
    return replace(energy, joules_per_1k_tokens=1000 * energy.joules / tokens)


def _stream_range(traces: Sequence[StreamTrace], window: Window) -> tuple[float, float] | None:
    rates = stream_rates(traces, window)
    return (min(rates), max(rates)) if rates else None


def _slices(window: Window) -> int:
    return max(1, min(60, int(window.seconds / 0.5)))


def _source(traces: Sequence[StreamTrace]) -> str | None:
    """The weakest source of any stream."""
    order = ("chunks", "tokenizer", "server_counter", "final_usage", "token_ids", "usage")
    seen = {t.source for t in traces if t.stamps}
    return next((name for name in order if name in seen), None)


def _near(value: float, wanted: int) -> bool:
    return abs(value - wanted) <= max(LENGTH_TOLERANCE * wanted, min(LENGTH_SLACK, wanted / 8))


def _isl(asked: Asked, traces: Sequence[StreamTrace]) -> int | None:
    known = [t.prompt_tokens for t in traces if t.prompt_tokens is not None]
    if not known:
        return None
    # Rounded before it is judged: the same length is else near here and not near in what reads the point.
    mean = round(sum(known) / len(known))
    return asked.isl if _near(mean, asked.isl) else mean


def _osl(asked: Asked, traces: Sequence[StreamTrace]) -> int | None:
    """As asked, unless streams that were left alone ended elsewhere."""
    whole = [t.tokens for t in traces if not t.cut and t.stamps and t.source != "chunks"]
    if not whole:
        return asked.osl if any(t.stamps for t in traces) else None
    mean = round(sum(whole) / len(whole))
    return asked.osl if _near(mean, asked.osl) else mean


def one_at_a_time(traces: Sequence[StreamTrace]) -> bool:
    """No stream has its first token before the one before it has its last."""
    spans = sorted((t.stamps[0], t.stamps[-1]) for t in traces if t.stamps)
    return len(spans) > 1 and all(ended <= began for (_, ended), (began, _) in pairwise(spans))


def most_at_once(traces: Sequence[StreamTrace]) -> int:
    """Streams between their first and their last token at one moment, at most."""
    edges = sorted(edge for t in traces if t.stamps for edge in ((t.stamps[0], 1), (t.decode_end_s, -1)))
    return max(accumulate(change for _, change in edges), default=0)


def _why_invalid(
    asked: Asked, traces: Sequence[StreamTrace], window: Window | None, source: str | None, isl: int | None
) -> list[str]:
    why = []
    failed = sum(t.error is not None for t in traces)
    if failed:
        why.append(f"{failed} of {len(traces)} streams failed")
    silent = max((t.ended_s - t.stamps[-1] for t in traces if t.cut and t.stamps), default=0.0)
    if window is not None and silent > max(1.0, SILENT_SHARE * window.seconds):
        why.append(f"a stream had been silent for {silent:.1f} s when the window closed")
    early = [t for t in traces if t.ended_early]
    if early:
        shortest = min(t.tokens for t in early)
        why.append(f"{len(early)} of {len(traces)} streams ended early (shortest {shortest:.0f} of {asked.osl} tokens)")
    if not asked.open_loop:
        if window is None:
            reason = (
                "each answer ended before the next began (no batching, or an output too short for the prefill)"
                if one_at_a_time(traces)
                else f"at most {most_at_once(traces)} did; the server takes no more at once (its limit on sequences, "
                f"KV memory), or an output length of {asked.osl} does not outlast the prefill of the others"
            )
            why.append(f"there was no moment in which all {asked.concurrency} streams decoded: {reason}")
        elif window.tokens(traces) < MIN_WINDOW_TOKENS * asked.concurrency:
            why.append(f"the window of {window.seconds:.2f} s holds under {MIN_WINDOW_TOKENS} tokens per stream")
    if source == "chunks":
        why.append(UNCOUNTED)
    if isl is not None and not _near(isl, asked.isl):
        why.append(f"prompts of {isl} tokens where {asked.isl} were asked")
    cached = sum(t.cached_tokens or 0 for t in traces)
    prompts = sum(t.prompt_tokens or 0 for t in traces)
    if prompts and cached > 0.05 * prompts:
        why.append(f"{100 * cached / prompts:.0f} % of the prompt tokens came from the prefix cache")
    return why
