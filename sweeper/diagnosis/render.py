"""A diagnosis as a person reads it: the cause first, in at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from sweeper.core.effective import EffectiveConfig
from sweeper.core.verdicts import Cause
from sweeper.diagnosis.result import Diagnosis
from sweeper.diagnosis.verdict import shown_line
from sweeper.engines.lines import printable

WIDTH = 80
_LABEL = 9
_MOST_ALSO = 8
_MOST_ROWS = 8
"""Rows of one log line that are shown."""
_COLOURS = {"fatal": "31;1", "unknown-exit": "31;1", "degraded": "33;1", "benign": "32;1"}
_HEADLINES = {
    "fatal": "FATAL",
    "degraded": "DEGRADED",
    "benign": "nothing wrong found",
    "unknown-exit": "DIED, cause unknown",
}
_ENGINES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "transformers": "transformers",
    "llamacpp": "llama.cpp",
    "trtllm": "TensorRT-LLM",
}


def render(file: str, diagnosis: Diagnosis, *, colour: bool = False) -> str:
    """Plain text of several rows, without a final newline."""
    return "\n".join(_rows(printable(file), diagnosis, colour))


def _rows(file: str, diagnosis: Diagnosis, colour: bool) -> Iterator[str]:
    head = _HEADLINES[diagnosis.verdict]
    if diagnosis.cause is not None and diagnosis.verdict != "unknown-exit":
        head += f"  {diagnosis.cause.id}"
    if colour:
        head = f"\x1b[{_COLOURS[diagnosis.verdict]}m{head}\x1b[0m"
    yield f"{'standard input' if file == '-' else file}: {head}"
    yield f"  {_engine(diagnosis)}, {diagnosis.lines:,} lines"
    if not diagnosis.complete:
        yield from _block("Note", f"the log was not read to its end: {printable(diagnosis.problem)}")
    if diagnosis.cause is not None:
        yield ""
        yield from _cause(diagnosis, diagnosis.cause)
    elif diagnosis.lines == 0:
        yield from _block("Note", "the log is empty: the process wrote nothing before it ended")
    yield from _others(diagnosis)
    ran = list(_ran(diagnosis.effective))
    if ran:
        yield ""
        yield from _block("Ran", "; ".join(ran))
    for fallback in diagnosis.effective.fallbacks:
        yield from _block("", printable(fallback))
    boot = [
        f"{phase.name} {phase.seconds:.0f} s"
        for phase in diagnosis.effective.boot
        if phase.seconds and phase.seconds >= 0.5
    ]
    if boot:
        yield from _block("Boot", ", ".join(boot))


def _engine(diagnosis: Diagnosis) -> str:
    if diagnosis.engine is None:
        return "engine not recognised"
    return (
        f"{_ENGINES.get(diagnosis.engine, diagnosis.engine)} {diagnosis.engine_version or '(version not in the log)'}"
    )


def _cause(diagnosis: Diagnosis, cause: Cause) -> Iterator[str]:
    where = f"line {cause.line_no:,}" if cause.line_no else "no line in the log"
    if diagnosis.count > 1:
        where += f", {diagnosis.count:,} such lines"
    if diagnosis.ranks:
        where += f", rank{'s' if len(diagnosis.ranks) > 1 else ''} {_ranges(diagnosis.ranks)}"
    yield from _block("Proof", where)
    if cause.line:
        yield from _log_line(cause.line)
    if diagnosis.evidence:
        yield from _block("", ", ".join(f"{name}: {value}" for name, value in diagnosis.evidence))
    yield from _block("Why", cause.means)
    yield from _block("Try", cause.try_)
    if cause.source:
        yield from _block("Known", cause.source)
    if diagnosis.excerpt:
        yield from _block("Trace", "its last lines:")
        for line in diagnosis.excerpt:
            yield from _log_line(line, rows=2)


def _others(diagnosis: Diagnosis) -> Iterator[str]:
    if not diagnosis.also:
        return
    yield ""
    for index, other in enumerate(diagnosis.also[:_MOST_ALSO]):
        times = f"{other.count:,}x from" if other.count > 1 else "at"
        ranks = f", rank{'s' if len(other.ranks) > 1 else ''} {_ranges(other.ranks)}" if other.ranks else ""
        yield from _block("" if index else "Also", f"{other.id} ({times} line {other.first_line_no:,}{ranks})")
    if len(diagnosis.also) > _MOST_ALSO:
        yield from _block("", f"and {len(diagnosis.also) - _MOST_ALSO} more (--json lists all)")


def _ran(facts: EffectiveConfig) -> Iterator[str]:
    moe = facts.moe_backend
    if moe is not None:
        ran = {None: "selected", True: "ran", False: "selected, another kernel ran"}[facts.moe_backend_ran]
        yield f"MoE {moe} ({ran})"
    for label, value in (
        ("draft MoE", facts.draft_moe_backend),
        ("linear", facts.linear_backend),
        ("attention", facts.attention_backend),
        ("draft attention", facts.draft_attention_backend),
        ("quantisation", facts.quantization),
        ("dtype", facts.dtype),
    ):
        if value is not None:
            yield f"{label} {printable(str(value))}"
    sizes = [f"{name}{size}" for name in ("tp", "pp", "dp", "ep") if (size := getattr(facts, name)) is not None]
    if sizes:
        yield " ".join(sizes)
    if facts.weights_load_s is not None or facts.weights_gib is not None:
        gib = f" {facts.weights_gib:g} GiB" if facts.weights_gib is not None else ""
        took = f" in {facts.weights_load_s:g} s" if facts.weights_load_s is not None else ""
        yield f"weights{gib}{took}"
    if facts.kv_cache_tokens is not None:
        yield f"KV cache {facts.kv_cache_tokens:,} tokens"
    if facts.cuda_graphs is not None:
        yield "CUDA graphs on" if facts.cuda_graphs else "CUDA graphs off"
    if facts.autotune_skipped:
        yield f"autotuner skipped {facts.autotune_skipped:,} of {facts.autotune_total or '-'} tactics"
    if facts.jit_in_run:
        yield f"{facts.jit_in_run} kernels compiled after ready"
    if facts.speculative_method is not None:
        length = f", acceptance length {facts.acceptance_length:g}" if facts.acceptance_length is not None else ""
        yield f"speculative {facts.speculative_method}{length}"
    if facts.generation_tok_s:
        yield f"generation up to {max(facts.generation_tok_s):g} tok/s by its own count"


def _block(label: str, text: str) -> Iterator[str]:
    indent = " " * (_LABEL + 2)
    rows = textwrap.wrap(
        printable(text), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    for index, row in enumerate(rows or [indent]):
        yield f"  {label:<{_LABEL}}{row[_LABEL + 2 :]}" if index == 0 else row


def _log_line(line: str, rows: int = _MOST_ROWS) -> Iterator[str]:
    """A line of the log, cut into rows as a terminal would, so that it can be read and searched for."""
    text, room = shown_line(line), WIDTH - _LABEL - 4
    pieces = [text[at : at + room] for at in range(0, len(text), room)] or [""]
    if len(pieces) > rows:
        pieces = [*pieces[:rows]]
        pieces[-1] = pieces[-1][: room - 1] + "…"
    for piece in pieces:
        yield f"{' ' * (_LABEL + 2)}| {piece}"


def _ranges(numbers: tuple[int, ...]) -> str:
    """`0-3, 6`"""
    parts: list[str] = []
    start = last = numbers[0]
    for number in (*numbers[1:], None):
        if number is not None and number == last + 1:
            last = number
            continue
        parts.append(f"{start}-{last}" if last > start else f"{start}")
        if number is not None:
            start = last = number
    return ", ".join(parts)
