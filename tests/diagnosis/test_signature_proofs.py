"""Generated from the signature files: every entry carries lines that must match and near misses that must not."""

from __future__ import annotations

from functools import cache

import pytest

from sweeper.diagnosis.matcher import LogMatcher
from sweeper.diagnosis.signature import Signature, load_signatures

SIGNATURES = load_signatures()


def _name(signature: Signature, index: int, kind: str) -> str:
    return f"{signature.id}:{signature.line}-{kind}{index}"


MATCH = [
    pytest.param(entry, text, id=_name(entry, index, "match"))
    for entry in SIGNATURES
    for index, text in enumerate(entry.examples.match)
]
NO_MATCH = [
    pytest.param(entry, text, id=_name(entry, index, "no"))
    for entry in SIGNATURES
    for index, text in enumerate(entry.examples.no_match)
]


def found(signatures: tuple[Signature, ...], text: str) -> list[str]:
    """Ids that an excerpt proves; as many times as `min_count` asks for."""
    matcher = LogMatcher(signatures)
    times = max((entry.min_count for entry in signatures), default=1) if len(signatures) == 1 else 1
    matches = matcher.feed((text + "\n").encode() * times)
    matcher.finish()
    return [match.id for match in matches]


@cache
def whole(text: str) -> tuple[str, str | None]:
    matcher = LogMatcher(SIGNATURES)
    matcher.feed((text + "\n").encode())
    diagnosis = matcher.finish()
    return diagnosis.verdict, diagnosis.cause.id if diagnosis.cause else None


@pytest.mark.parametrize(("entry", "text"), MATCH)
def test_a_proof_matches_its_own_entry(entry: Signature, text: str) -> None:
    assert entry.id in found((entry,), text)


@pytest.mark.parametrize(("entry", "text"), MATCH)
def test_the_whole_diagnosis_names_a_fatal_proof(entry: Signature, text: str) -> None:
    if entry.severity != "fatal" or entry.min_count > 1:
        return
    verdict, cause = whole(text)
    assert cause == entry.id, f"named {cause} ({verdict})"
    assert verdict in ("fatal", "degraded")


@pytest.mark.parametrize(("entry", "text"), NO_MATCH)
def test_a_near_miss_does_not_match(entry: Signature, text: str) -> None:
    assert entry.id not in found((entry,), text)


def test_no_two_fatal_signatures_claim_the_same_proof_line() -> None:
    roots = tuple(entry for entry in SIGNATURES if entry.severity == "fatal" and entry.rank == "root")
    clashes = []
    for entry in roots:
        for text in entry.examples.match:
            if "\n" in text.strip():
                continue
            others = {name for name in found(roots, text) if name != entry.id}
            explained = {name for name in others for e in roots if e.id == name and entry.id in e.consequence_of}
            if others - explained:
                clashes.append((entry.id, sorted(others - explained), text[:160]))
    assert clashes == []
