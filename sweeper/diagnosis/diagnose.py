"""A whole log from a source to a diagnosis, the second route for wrapped text included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain

from sweeper.core.errors import UsageError
from sweeper.diagnosis.matcher import LogMatcher
from sweeper.diagnosis.result import Diagnosis
from sweeper.diagnosis.signature import Signature
from sweeper.diagnosis.sources import Source, looks_binary
from sweeper.diagnosis.wraps import LARGEST, may_be_wrapped, rows_of, unwrapped

_OPAQUE = ("engine-core-init-failed-opaque", "unknown-exit")


def diagnose_source(source: Source, signatures: Sequence[Signature], *, engine: str | None = None) -> Diagnosis:
    """Reads the source to its end. Raises UsageError or EnvironmentNotReady where there is nothing to be read."""
    chunks = source.chunks()
    first = next(chunks, b"")
    if looks_binary(first):
        raise UsageError(f"{source.name}: binary data, not a log")
    diagnosis = diagnose_chunks(
        chain([first], chunks), signatures, engine=engine, exit_of=lambda: (source.exited, source.exit_code)
    )
    if source.problem and not diagnosis.lines:
        raise UsageError(f"{source.name}: {source.problem}")
    return replace(diagnosis, complete=not source.problem, problem=source.problem)


def diagnose_bytes(
    data: bytes, signatures: Sequence[Signature], *, engine: str | None = None, exit_code: int | None = None
) -> Diagnosis:
    """A log that is in memory."""
    exited = None if exit_code is None else True
    return diagnose_chunks([data], signatures, engine=engine, exit_of=lambda: (exited, exit_code))


def diagnose_chunks(
    chunks: Iterable[bytes],
    signatures: Sequence[Signature],
    *,
    engine: str | None = None,
    exit_of: Callable[[], tuple[bool | None, int | None]] = lambda: (None, None),
) -> Diagnosis:
    """Any chunking. `exit_of` is asked after the last chunk."""
    matcher = LogMatcher(signatures, engine=engine)
    kept: list[bytes] = []
    size = 0
    for data in chunks:
        matcher.feed(data)
        size += len(data)
        if size <= LARGEST:
            kept.append(data)
        elif kept:
            kept = []
    exited, code = exit_of()
    diagnosis = matcher.finish(exited, code)
    if size > LARGEST or (_is_sure(diagnosis) and not may_be_wrapped(kept)):
        return diagnosis
    return _second_route(diagnosis, b"".join(kept), signatures, engine, (exited, code))


def _is_sure(diagnosis: Diagnosis) -> bool:
    return diagnosis.verdict == "fatal" and diagnosis.cause is not None and diagnosis.cause.id not in _OPAQUE


def _second_route(
    first: Diagnosis,
    data: bytes,
    signatures: Sequence[Signature],
    engine: str | None,
    ended: tuple[bool | None, int | None],
) -> Diagnosis:
    """The log with its rows put together; taken only where it names a cause that the first reading did not."""
    rows, width = rows_of(data)
    if width is None and _is_sure(first):
        return first
    for glue in ("", " "):
        text, joined = unwrapped(rows, width, glue)
        if not joined:
            return first
        matcher = LogMatcher(signatures, engine=engine)
        matcher.feed(text)
        second = replace(matcher.finish(*ended), lines=first.lines)
        # Without a width the joins are guesses: only a line that was put together may speak.
        told = second.cause is not None and (width is not None or second.cause.line_no in joined)
        if told and (_is_sure(second) or (first.verdict == "benign" and second.verdict == "degraded")):
            return second
        if width is not None and _facts(second) > _facts(first):
            first = replace(first, effective=second.effective)
    return first


def _facts(diagnosis: Diagnosis) -> int:
    return len(diagnosis.effective.evidence)
