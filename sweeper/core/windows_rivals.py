"""What other tools compute from the same arrivals, for docs and tests; none of it is used for a figure of ours. Pure.

Formulas and file lines: peers.md section 3.1, read from the sources of vLLM 0.32, SGLang 0.5.23, GuideLLM 0.8.1,
llama-benchy and AIPerf 0.13. Notation there: s send, f first chunk, l last chunk, n tokens, m chunks, D whole duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from sweeper.core.windows import StreamTrace, chunk_gaps_s

Formula = Callable[[Sequence[StreamTrace]], float | None]


def _duration(traces: Sequence[StreamTrace]) -> float:
    return max(t.stamps[-1] for t in traces) - min(t.sent_s for t in traces)


def output_throughput(traces: Sequence[StreamTrace]) -> float:
    """sum(n) / D, prefill and drain inside: vLLM, SGLang, EvalScope, AIPerf, genai-bench."""
    return sum(t.tokens for t in traces) / _duration(traces)


def requested_throughput(traces: Sequence[StreamTrace]) -> float:
    """sum(requested) / D: SGLang when a server sends no usage; a stream that ended early counts in full."""
    return sum(t.requested for t in traces) / _duration(traces)


def chunk_peak(traces: Sequence[StreamTrace]) -> float:
    """Busiest second, one token per chunk: vLLM's and SGLang's peak output throughput."""
    start = min(t.sent_s for t in traces)
    return float(max(Counter(int(stamp - start) for t in traces for stamp in t.stamps).values()))


def inverse_tpot(traces: Sequence[StreamTrace]) -> float | None:
    """1 / mean((l - f) / (n - 1)), per stream: vLLM, SGLang, genai-bench, MLPerf."""
    spans = [(t.stamps[-1] - t.stamps[0]) / (t.tokens - 1) for t in traces if t.tokens > 1]
    return 1 / fmean(spans) if spans else None


def inverse_chunk_itl(traces: Sequence[StreamTrace]) -> float | None:
    """1 / mean gap between chunks, per stream: vLLM's ITL read as seconds per token."""
    gaps = [gap for t in traces for gap in chunk_gaps_s(t)]
    return 1 / fmean(gaps) if gaps else None


def inverse_guidellm_tpot(traces: Sequence[StreamTrace]) -> float:
    """1 / mean((l - s) / n), per stream: GuideLLM's time per output token, the wait for the first one inside."""
    return 1 / fmean((t.stamps[-1] - t.sent_s) / t.tokens for t in traces)


def llama_benchy(traces: Sequence[StreamTrace]) -> float:
    """sum(tokens after f) / (max l - min f): prefill of later streams and the drain inside."""
    span = max(t.stamps[-1] for t in traces) - min(t.stamps[0] for t in traces)
    return sum(t.tokens - t.totals[0] for t in traces) / span


RIVALS: Mapping[str, tuple[Formula, bool]] = {
    "sum(n) / D (vLLM, SGLang, AIPerf, genai-bench)": (output_throughput, False),
    "peak second, 1 per chunk (vLLM, SGLang)": (chunk_peak, False),
    "1 / TPOT, (l-f)/(n-1) (vLLM, SGLang)": (inverse_tpot, True),
    "1 / ITL over chunk gaps (vLLM)": (inverse_chunk_itl, True),
    "1 / TPOT, (l-s)/n (GuideLLM)": (inverse_guidellm_tpot, True),
    "sum(n-k1) / (max l - min f) (llama-benchy)": (llama_benchy, False),
}
"""Formula and whether it is per stream."""
