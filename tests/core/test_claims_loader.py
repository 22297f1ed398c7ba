"""Claims files that are wrong: every complaint has file, line, key and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.claimdata.load import load_claims, parse_claims
from sweeper.core.errors import BadFile, UsageError

GOOD = """table: t
source: {title: a, where: b}
conditions: {model: m, gpu: H200, gpus: 1, speculative: none, concurrency: 1}
unknown: [isl]
claims:
  - {id: one, value: 50.5}
"""


def complaint(text: str) -> str:
    with pytest.raises(BadFile) as caught:
        parse_claims("own.yaml", text.encode())
    return str(caught.value.message)


def test_defaults_of_the_file_hold_for_every_claim() -> None:
    (made,) = parse_claims("own.yaml", GOOD.encode())
    assert (made.low, made.high, made.kind, made.unit, made.conditions.gpu) == (50.5, 50.5, "output", "tok/s", "H200")
    assert (made.unknown, made.line) == (("isl",), 6)


def test_a_claim_takes_a_default_back_with_null() -> None:
    text = GOOD + "  - {id: two, value: [1, 2], conditions: {speculative: null}, unknown: [speculative]}\n"
    made = parse_claims("own.yaml", text.encode())[1]
    assert made.conditions.speculative is None
    assert made.unknown == ("isl", "speculative")


def test_readings_become_claims_beside_the_one_they_read() -> None:
    text = GOOD.replace("value: 50.5}", "value: 50.5, readings: {with-mtp: {conditions: {speculative: mtp}}}}")
    base, reading = parse_claims("own.yaml", text.encode())
    assert (reading.id, reading.reading_of, reading.conditions.speculative) == ("one.with-mtp", "one", "mtp")
    assert base.conditions.speculative == "none"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gpus: 1", "gpu_count: 1", "own.yaml:3: conditions.gpu_count: unknown key 'gpu_count'"),
        ("concurrency: 1", "concurency: 1", "unknown key 'concurency'; did you mean 'concurrency'?"),
        ("value: 50.5", "valeu: 50.5", "own.yaml:6: claims[0].valeu: unknown key 'valeu'; did you mean 'value'?"),
        ("value: 50.5", "value: fast", "own.yaml:6: claims[0].value: a number, or [lowest, highest], is wanted"),
        ("value: 50.5", "value: [60, 50]", "own.yaml:6: claims[0].value: the range goes from 60 down to 50"),
        ("value: 50.5", "value: [1, 2, 3]", "own.yaml:6: claims[0].value: a range has two numbers"),
        ("value: 50.5", "kind: output", "own.yaml:6: claims[0].value: missing"),
        ("value: 50.5", "value: 1, kind: outptu", "claims[0].kind: 'outptu' is not accepted; did you mean 'output'?"),
        ("value: 50.5", "value: 1, unit: tok", "claims[0].unit: 'tok' is not a unit of output; did you mean 'tok/s'?"),
        ("value: 50.5", "value: 1, kind: energy", "'tok/s' is not a unit of energy"),
        ("[isl]", "[ils]", "own.yaml:4: unknown[0]: 'ils' is not a condition; did you mean 'isl'?"),
        ("value: 50.5", "value: 1, unknown: [gpu]", "6: claims[0].unknown[0]: 'gpu' is stated as H200 and unknown"),
        ("gpus: 1", "gpus: two", "own.yaml:3: conditions.gpus: needs a whole number, got 'two'"),
        ("gpus: 1", "gpus: 0", "own.yaml:3: conditions.gpus: must be at least 1, got 0"),
        ("speculative: none", "speculative: mpt", "conditions.speculative: 'mpt' is not accepted; did you mean 'mtp'?"),
        ("source: {title: a, where: b}", "", "own.yaml:6: claims[0]: no source"),
        ("id: one", "id: One Two", "own.yaml:6: claims[0].id: 'One Two' is not an id"),
        ("table: t", "table: t\n\tx: 1", "own.yaml:2: a tab in the indentation"),
        ("table: t", "table: t\ntable: u", "own.yaml:2: key 'table' is given twice, first in line 1"),
        ("claims:\n  - {id: one, value: 50.5}", "claims: []", "own.yaml:5: claims: must not be empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(old: str, new: str, said: str) -> None:
    assert old in GOOD
    assert said in complaint(GOOD.replace(old, new))


def test_all_mistakes_are_told_at_once() -> None:
    told = complaint(GOOD.replace("gpus: 1", "gpsu: 1").replace("50.5", "fast"))
    assert told.startswith("2 problems in own.yaml")


def test_an_id_given_twice_names_both_places(tmp_path: Path) -> None:
    assert "id 'one' is given twice, first in line 6" in complaint(GOOD + "  - {id: one, value: 3}\n")
    (tmp_path / "own.yaml").write_text(GOOD.replace("id: one", "id: p1-marlin-tp4"))
    with pytest.raises(BadFile, match=r"own\.yaml:6: id 'p1-marlin-tp4' is taken: p1-moe-backends\.yaml:\d+"):
        load_claims([tmp_path])


def test_a_retelling_needs_its_original(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(GOOD.replace("value: 50.5", "value: 1, same_as: lda-marlin-tp5"))
    with pytest.raises(BadFile, match="did you mean 'lda-marlin-tp4'"):
        load_claims([tmp_path])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "the file is empty"),
        (b"- a\n", "a claims file is a mapping of keys"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"a: 1\n---\nb: 2\n", "a second document"),
    ],
)
def test_what_is_no_claims_file_is_told_so(raw: bytes, said: str) -> None:
    with pytest.raises(BadFile) as caught:
        parse_claims("own.yaml", raw)
    assert said in caught.value.message
    assert "matrix" not in f"{caught.value.message} {caught.value.hint}"


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such folder"):
        load_claims([tmp_path / "none"])
    with pytest.raises(BadFile, match="no YAML file in this folder"):
        load_claims([tmp_path])


def test_own_claims_stand_beside_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(GOOD)
    claims = load_claims([tmp_path])
    assert claims[-1].id == "one"
    assert len(claims) == len(load_claims()) + 1


def test_bad_file_is_a_usage_error() -> None:
    assert issubclass(BadFile, UsageError)
