"""Every signature carries its own proofs; this runs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeper.diagnosis.matcher import LogMatcher
from sweeper.diagnosis.signature import Signature


def ids_found(signatures: Sequence[Signature], text: str, *, times: int = 1) -> list[str]:
    """Ids that an excerpt proves, in order, with repeats. `times`: for entries that need several lines."""
    matcher = LogMatcher(signatures)
    found = matcher.feed((text + "\n").encode() * times)
    matcher.finish()
    return [match.id for match in found]


def named_cause(signatures: Sequence[Signature], text: str) -> str | None:
    """What a whole diagnosis of the excerpt names."""
    matcher = LogMatcher(signatures)
    matcher.feed((text + "\n").encode())
    cause = matcher.finish().cause
    return cause.id if cause else None


def check_proofs(entry: Signature, known: Sequence[Signature]) -> Iterator[str]:
    """One sentence per failed proof, with file and line of the entry. `known`: all signatures, this one included."""
    place = f"{entry.path}:{entry.line}: {entry.id}"
    for text in entry.examples.match:
        if entry.id not in ids_found([entry], text, times=entry.min_count):
            yield f"{place}: does not match its own example: {text[:200]}"
        elif entry.severity == "fatal" and entry.min_count == 1 and (named := named_cause(known, text)) != entry.id:
            yield f"{place}: with all signatures the cause is {named}: {text[:200]}"
    for text in entry.examples.no_match:
        if entry.id in ids_found([entry], text, times=entry.min_count):
            yield f"{place}: matches a near miss: {text[:200]}"
