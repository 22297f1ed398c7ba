"""The server's own counters beside the client's count: agreement and speculative acceptance. Pure.

Counter names: vLLM and SGLang as served on /metrics (the reader normalises them, sweeper/probes/load/counters.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sweeper.core.points import Acceptance
from sweeper.core.windows import StreamTrace, Window, tokens_at

TOLERANCE = 0.02
"""Largest relative difference between the server's token counter and the client's count that lets a point be ranked."""
MAX_UNSURE = 0.05
"""Relative: scrapes so slow that they leave more than this open prove nothing; the check inside the window is then not
made, and the one over the whole run decides."""

MIN_GAUGES = 3
"""Scrapes inside a window from which the gauge of running requests is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSample:
    """Counters at one instant (the middle of the scrape). None: the server does not expose it."""

    when_s: float
    took_s: float = 0.0
    """Length of the scrape: the server read its counters at some moment of it."""
    generated: float | None = None
    drafts: float | None = None
    draft_tokens: float | None = None
    accepted: float | None = None
    per_position: tuple[float, ...] = ()
    running: float | None = None
    waiting: float | None = None
    preemptions: float | None = None
    counts_on_finish: bool = False
    """The token counter moves only when a request ends (SGLang), so it says nothing inside a window."""
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """`server_tok_s` and `client_tok_s` are over the same interval, [from_s, to_s]."""

    server_tok_s: float | None
    client_tok_s: float | None
    difference: float | None
    """(server - client) / client."""
    invalid: str | None


def cross_check(samples: Sequence[CounterSample], traces: Sequence[StreamTrace], window: Window) -> CrossCheck:
    """Server against client between the first and last scrape inside the window's longest stretch."""
    start, end = max(window.segments, key=lambda s: s[1] - s[0])
    inside = [s for s in samples if start <= s.when_s <= end and s.generated is not None and not s.counts_on_finish]
    if len(inside) < 2:
        return CrossCheck(server_tok_s=None, client_tok_s=None, difference=None, invalid=None)
    first, last = inside[0], inside[-1]
    seconds = last.when_s - first.when_s
    served = (last.generated or 0.0) - (first.generated or 0.0)
    got = sum(tokens_at(t, last.when_s) - tokens_at(t, first.when_s) for t in traces)
    # A scrape may miss one event per stream at either end, and what was generated while it was being answered: an
    # engine that shares its cores with everybody takes a tenth of a second for that.
    steps = sum(len(t.stamps) for t in traces)
    slack = 2 * len(traces) * sum(t.tokens for t in traces) / steps if steps else 0.0
    unsure = (first.took_s + last.took_s) / 2 / seconds if seconds > 0 else 0.0
    if unsure > MAX_UNSURE:
        return CrossCheck(server_tok_s=None, client_tok_s=None, difference=None, invalid=None)
    slack += unsure * got
    return _compared(served, got, seconds, slack, "inside the window")


def too_few_running(samples: Sequence[CounterSample], window: Window) -> str | None:
    """Why the window is not one of so many streams: the server itself worked on fewer, others were preempted.

    By the median of three scrapes or more inside the window: a gauge may lag behind by some steps.
    """
    inside = [s.running for s in samples if s.running is not None and _holds(window, s.when_s)]
    if len(inside) < MIN_GAUGES or median(inside) >= window.concurrency:
        return None
    return f"the server worked on {median(inside):.0f} of {window.concurrency} streams at a time (its own gauge)"


def _holds(window: Window, when_s: float) -> bool:
    return any(start <= when_s <= end for start, end in window.segments)


def cross_check_total(before: CounterSample, after: CounterSample, traces: Sequence[StreamTrace]) -> str | None:
    """Why the whole run is not to be trusted, or None. Needs streams that ran to their end; other clients show here."""
    if before.generated is None or after.generated is None or any(t.cut or t.error or not t.stamps for t in traces):
        return None
    if before.when_s > min(t.sent_s for t in traces) or after.when_s < max(t.stamps[-1] for t in traces):
        return None
    got = sum(t.tokens for t in traces)
    return _compared(after.generated - before.generated, got, 1.0, float(len(traces)), "over the whole run").invalid


def tokens_per_chunk(samples: Sequence[CounterSample], traces: Sequence[StreamTrace], concurrency: int) -> float | None:
    """Tokens that the counter moved by over the whole run, per chunk received: for streams that nobody counted.

    None where that is no count of these streams: one failed, was cut or has a count of its own, the counter does not
    cover the run, more than `concurrency` requests ran, or it moved by less than the chunks or more than was asked.
    """
    if len(samples) < 2 or not traces or any(t.cut or t.error or t.source != "chunks" for t in traces):
        return None
    before, after = samples[0], samples[-1]
    if before.generated is None or after.generated is None:
        return None
    if before.when_s > min(t.sent_s for t in traces) or after.when_s < max(t.stamps[-1] for t in traces):
        return None
    if max(s.running or 0.0 for s in samples) > concurrency:
        return None
    chunks, served = sum(t.tokens for t in traces), after.generated - before.generated
    most = sum(t.requested for t in traces)
    return served / chunks if chunks * (1 - TOLERANCE) <= served <= most * (1 + TOLERANCE) else None


def _compared(served: float, got: float, seconds: float, slack: float, where: str) -> CrossCheck:
    difference = (served - got) / got if got else None
    bad = abs(served - got) > max(TOLERANCE * got, slack)
    why = f"server counted {served:.0f} tokens {where}, the client {got:.0f}; more than 2 % apart" if bad else None
    return CrossCheck(server_tok_s=served / seconds, client_tok_s=got / seconds, difference=difference, invalid=why)


def acceptance_from_counters(before: CounterSample, after: CounterSample) -> Acceptance | None:
    """Acceptance between two scrapes: rate = accepted / drafted, length = 1 + accepted / drafts. None: no drafting."""
    if None in (before.drafts, after.drafts, before.accepted, after.accepted, before.draft_tokens, after.draft_tokens):
        return None
    drafts = after.drafts - before.drafts  # type: ignore[operator]
    tokens = after.draft_tokens - before.draft_tokens  # type: ignore[operator]
    accepted = after.accepted - before.accepted  # type: ignore[operator]
    if drafts <= 0 or tokens <= 0:
        return None
    padded = [*before.per_position, *[0.0] * len(after.per_position)]
    return Acceptance(
        rate=accepted / tokens,
        length=1 + accepted / drafts,
        drafts=round(drafts),
        draft_tokens=round(tokens),
        accepted=round(accepted),
        per_position=tuple((b - a) / drafts for a, b in zip(padded, after.per_position, strict=False)),
        per_step=_per_step(before, after, accepted),
    )


def _per_step(before: CounterSample, after: CounterSample, accepted: float) -> float | None:
    """A step makes one token and what it accepts, so tokens - accepted is the number of steps."""
    if before.generated is None or after.generated is None:
        return None
    made = after.generated - before.generated
    return made / (made - accepted) if made > accepted else None


def acceptance_from_requests(traces: Sequence[StreamTrace]) -> Acceptance | None:
    """Acceptance from vLLM's per-request speculative metrics (`--per-request-spec-decode-metrics`, from 0.29.0)."""
    found = [t.speculative for t in traces if t.speculative]
    drafts = sum(s.get("num_spec_steps", 0) for s in found)
    tokens = sum(s.get("num_draft_tokens", 0) for s in found)
    accepted = sum(s.get("num_accepted_draft_tokens", 0) for s in found)
    if drafts <= 0 or tokens <= 0:
        return None
    width = max(len(s.get("acceptance_histogram", ())) for s in found)
    # histogram[j]: steps that accepted exactly j drafts; position p is hit by every step that accepted more than p.
    hits = [sum(sum(s.get("acceptance_histogram", ())[p + 1 :]) for s in found) for p in range(max(0, width - 1))]
    return Acceptance(
        rate=accepted / tokens,
        length=1 + accepted / drafts,
        drafts=drafts,
        draft_tokens=tokens,
        accepted=accepted,
        per_position=tuple(hit / drafts for hit in hits),
    )
