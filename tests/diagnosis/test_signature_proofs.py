"""Generated from the signature files: every entry carries lines that must match and near misses that must not."""

from __future__ import annotations

import pytest

from sweeper.diagnosis.proofs import ids_found, named_cause
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


@pytest.mark.parametrize(("entry", "text"), MATCH)
def test_a_proof_matches_its_own_entry(entry: Signature, text: str) -> None:
    assert entry.id in ids_found((entry,), text, times=entry.min_count)


@pytest.mark.parametrize(("entry", "text"), MATCH)
def test_the_whole_diagnosis_names_a_fatal_proof(entry: Signature, text: str) -> None:
    if entry.severity != "fatal" or entry.min_count > 1:
        return
    assert named_cause(SIGNATURES, text) == entry.id


@pytest.mark.parametrize(("entry", "text"), NO_MATCH)
def test_a_near_miss_does_not_match(entry: Signature, text: str) -> None:
    assert entry.id not in ids_found((entry,), text, times=entry.min_count)


def test_no_two_fatal_signatures_claim_the_same_proof_line() -> None:
    roots = tuple(entry for entry in SIGNATURES if entry.severity == "fatal" and entry.rank == "root")
    clashes = []
    for entry in roots:
        for text in entry.examples.match:
            if "\n" in text.strip():
                continue
            others = {name for name in ids_found(roots, text) if name != entry.id}
            explained = {name for name in others for e in roots if e.id == name and entry.id in e.consequence_of}
            if others - explained:
                clashes.append((entry.id, sorted(others - explained), text[:160]))
    assert clashes == []
