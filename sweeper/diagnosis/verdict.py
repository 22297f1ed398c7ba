"""From what was seen in a log to one answer: which of it is the cause, and whether there is one at all.

Order of choice: a root that was fatal where it stood; else a consequence; else a re-raise, unless an inner process left
a traceback that nobody explained, for then the honest answer is `unknown-exit`.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeper.core.effective import EffectiveConfig
from sweeper.core.redact import redact
from sweeper.core.verdicts import Cause
from sweeper.diagnosis.engine import fits
from sweeper.diagnosis.result import Also, Diagnosis
from sweeper.diagnosis.signature import Signature
from sweeper.diagnosis.state import Attempt
from sweeper.diagnosis.tracebacks import Trace
from sweeper.engines.lines import printable

_RANKS = {"root": 0, "consequence": 1, "opaque": 2}
_MANY_SKIPPED = 0.9
"""Share of autotuner tactics skipped from which it is more than noise."""
_LONGEST_LINE = 2000
_NEAR = 6
"""Lines between an exception and the line that explains it, in one process."""


@dataclass(slots=True)
class Seen:
    """Every match of one id in one stretch of one attempt, folded."""

    signature: Signature
    attempt: int
    after_ready: bool | None
    stopping: bool
    first_no: int
    line: str
    process: str | None = None
    level: str | None = None
    count: int = 1
    last_no: int = 0
    ranks: set[int] = field(default_factory=set)
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything a log told."""

    seen: Sequence[Seen]
    attempts: Sequence[Attempt]
    traces: Sequence[Trace]
    effective: EffectiveConfig
    engine: str | None
    engine_version: str | None
    lines: int
    last: tuple[int, bytes] | None
    """Number and text of the last line that is not blank."""
    exited: bool | None
    exit_code: int | None


_ANNOUNCED = 3
"""Lines between an announcement and the head of its traceback."""


def decide(story: Story) -> Diagnosis:
    """The diagnosis of a log that was read to its end."""
    index = _telling_attempt(story)
    attempt = story.attempts[index]
    here = [seen for seen in story.seen if seen.attempt == index and not seen.stopping]
    fatal = [seen for seen in here if seen.signature.severity == "fatal" and _was_fatal(seen, attempt, story)]
    unexplained = _unexplained(story, attempt, here)
    chosen = _cause(fatal, story, unexplained)
    if chosen is not None:
        return _diagnosis(story, "fatal", chosen)
    died = bool(fatal) or _died(story, attempt)
    if unexplained and (died or attempt.ready is None):
        return _unknown(story, unexplained)
    if died:
        return _unknown(story, None, attempt)
    soft = _degraded(here, attempt, story)
    if soft is not None:
        return _diagnosis(story, "degraded", soft)
    return _diagnosis(story, "benign", None)


def _telling_attempt(story: Story) -> int:
    """The last start of the server; the one before when the last says nothing yet."""
    last = len(story.attempts) - 1
    while last > 0:
        attempt = story.attempts[last]
        told = attempt.ready or attempt.death or any(seen.attempt == last for seen in story.seen)
        if told or any(trace.start >= attempt.start for trace in story.traces):
            break
        last -= 1
    return last


def _was_fatal(seen: Seen, attempt: Attempt, story: Story) -> bool:
    signature = seen.signature
    if signature.rank == "opaque":
        return True
    if attempt.ready is not None and seen.last_no < attempt.ready:
        # The server came up after it: whatever it was, it did not end the start.
        return False
    went_on = attempt.served is not None and attempt.served > seen.last_no and not _died(story, attempt)
    if seen.after_ready and not signature.fatal_after_ready:
        return _died(story, attempt) and not went_on
    return not (seen.after_ready and went_on)


def _died(story: Story, attempt: Attempt) -> bool:
    if attempt.death is not None:
        return True
    if story.exit_code is not None and story.exited is not False:
        return story.exit_code not in (0, 130, 143) or attempt.stopping is None
    return False


def _cause(fatal: Sequence[Seen], story: Story, unexplained: Trace | None) -> Seen | None:
    if not fatal:
        return None
    ids = {seen.signature.id for seen in fatal}
    left = [
        seen for seen in fatal if not (ids - {seen.signature.id}).intersection(seen.signature.consequence_of)
    ] or fatal
    ranked = sorted(
        left,
        key=lambda seen: (
            _RANKS[seen.signature.rank],
            not _fits(seen, story),
            seen.first_no,
            -_specific(seen.signature),
        ),
    )
    best = ranked[0]
    # "WorkerProc hit an exception." stands right above the traceback that it announces.
    if best.signature.rank != "root" and unexplained is not None and unexplained.start <= best.first_no + _ANNOUNCED:
        return None
    return best


def _specific(signature: Signature) -> int:
    """Characters a line had to hold: of two causes on one line the closer description wins."""
    literals = [*signature.contains, *(signature.multiline.next_contains if signature.multiline else ())]
    return sum(map(len, literals)) + (20 if signature.before else 0)


def _fits(seen: Seen, story: Story) -> bool:
    return fits(seen.signature, story.engine, story.engine_version)


def _unexplained(story: Story, attempt: Attempt, here: Sequence[Seen]) -> Trace | None:
    """First traceback of the innermost process that no match, no stop and no re-raise accounts for."""
    fatal = [seen for seen in here if seen.signature.severity == "fatal"]
    # The exception line itself may be a known re-raise; a line just below the traceback may name its cause.
    told = [(seen.first_no, 0 if seen.signature.rank == "opaque" else _NEAR) for seen in fatal]
    candidates = [
        trace
        for trace in story.traces
        if trace.exception
        and not trace.harmless
        and not trace.reraise
        and trace.start >= attempt.start
        and (attempt.stopping is None or trace.start < attempt.stopping)
        and not (attempt.ready is not None and trace.start < attempt.ready)
        and not any(trace.start <= no <= (trace.end or trace.start) + near for no, near in told)
    ]
    return min(candidates, key=lambda trace: (-trace.depth, trace.start), default=None)


def _degraded(here: Sequence[Seen], attempt: Attempt, story: Story) -> Seen | None:
    """A server that went on in spite of something, or runs worse than it should."""
    soft = [seen for seen in here if seen.signature.severity == "degraded"]
    soft += [seen for seen in here if seen.signature.severity == "fatal" and seen.signature.rank == "root"]
    skipped, total = story.effective.autotune_skipped, story.effective.autotune_total
    if skipped and total and skipped / total >= _MANY_SKIPPED:
        soft += [seen for seen in here if seen.signature.id == "flashinfer-autotune-tactic-skip"]
    return min(soft, key=lambda seen: (not _fits(seen, story), seen.first_no), default=None)


def _diagnosis(story: Story, verdict: str, chosen: Seen | None) -> Diagnosis:
    cause: Cause | None = None
    count = 0
    ranks: tuple[int, ...] = ()
    evidence: tuple[tuple[str, str], ...] = ()
    if chosen is not None:
        same = [
            seen for seen in story.seen if seen.signature.id == chosen.signature.id and seen.attempt == chosen.attempt
        ]
        cause = _as_cause(chosen)
        count = sum(seen.count for seen in same)
        ranks = tuple(sorted(set().union(*(seen.ranks for seen in same))))
        evidence = tuple((name, redact(printable(value))) for name, value in chosen.evidence.items())
    return Diagnosis(
        engine=story.engine,
        engine_version=story.engine_version,
        verdict=verdict,  # type: ignore[arg-type]
        cause=cause,
        also=_also(story, cause.id if cause else None),
        effective=story.effective,
        lines=story.lines,
        count=count,
        ranks=ranks,
        evidence=evidence,
    )


def _as_cause(seen: Seen) -> Cause:
    signature = seen.signature
    return Cause(
        id=signature.id,
        means=signature.means,
        try_=signature.try_,
        source=signature.source,
        line_no=seen.first_no,
        line=shown_line(seen.line),
    )


def shown_line(raw: str) -> str:
    """A log line fit to be shown or stored: no control characters, no secrets, bounded."""
    text = redact(printable(raw)).rstrip()
    return text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"


def _also(story: Story, cause: str | None) -> tuple[Also, ...]:
    folded: dict[str, list[Seen]] = {}
    for seen in story.seen:
        if seen.signature.id != cause:
            folded.setdefault(seen.signature.id, []).append(seen)
    rows = [
        Also(
            id=name,
            severity=group[0].signature.severity,
            count=sum(seen.count for seen in group),
            first_line_no=min(seen.first_no for seen in group),
            ranks=tuple(sorted(set().union(*(seen.ranks for seen in group)))),
            means=group[0].signature.means,
        )
        for name, group in folded.items()
    ]
    return tuple(sorted(rows, key=lambda row: row.first_line_no))


def _unknown(story: Story, trace: Trace | None, attempt: Attempt | None = None) -> Diagnosis:
    code = "" if story.exit_code is None else f" with code {story.exit_code}{_signal(story.exit_code)}"
    if trace is not None:
        where = f" of {trace.process}" if trace.process else ""
        means = f"The process died{code} and no signature explains it; this is the first traceback{where}."
        cause = Cause(id="unknown-exit", means=means, try_=_ASK, line_no=trace.end, line=shown_line(trace.raw))
        excerpt = tuple(shown_line(line) for line in trace.tail)
    else:
        means = f"The process ended{code}; the log holds neither a known cause nor a traceback of an inner process."
        no, line = story.last or (None, b"")
        if attempt and attempt.death:
            no, line = attempt.death, attempt.death_line.encode()
        shown = shown_line(line.decode("utf-8", "replace")) if no else None
        cause = Cause(id="unknown-exit", means=means, try_=_LOOK, line_no=no, line=shown)
        excerpt = ()
    return Diagnosis(
        engine=story.engine,
        engine_version=story.engine_version,
        verdict="unknown-exit",
        cause=cause,
        also=_also(story, None),
        effective=story.effective,
        lines=story.lines,
        count=1,
        excerpt=excerpt,
    )


def _signal(code: int) -> str:
    """` (SIGSEGV)` for 139: shells add 128 to the signal that ended a process."""
    try:
        return f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""


_ASK = (
    "Search the exception text in the engine's issues; with a signature of your own it gets a name next time "
    "(sweeper signatures --help)."
)
_LOOK = (
    "Read the end of the log; if its beginning is missing, get the whole (docker logs, journalctl -u). "
    "Look at dmesg for Xid and oom-kill lines."
)
