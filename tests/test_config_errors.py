"""Matrix files that are wrong: each complaint names file, line, key path and what is accepted; all come at once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.cli.main import main
from sweeper.config import load_matrix
from sweeper.core.errors import BadFile, UsageError
from sweeper.matrix.problems import BadMatrix
from sweeper.matrix.source import MAX_BYTES, parse

TOP = "engine: vllm\nmodel: org/m\n"


def complaints(tmp_path: Path, text: str | bytes) -> list[tuple[int | None, str | None, str]]:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadFile) as error:
        load_matrix(file, environ={}, cwd=tmp_path)
    assert str(file) in error.value.message
    assert isinstance(error.value, BadMatrix)
    return [(one.line, one.key, one.text) for one in error.value.problems]


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        # keys
        (TOP + "modle: x\n", 3, "modle", "did you mean 'model'"),
        (TOP + "axes:\n  moe_backnd: [auto]\n", 4, "axes.moe_backnd", "did you mean 'moe_backend'"),
        (TOP + "axes:\n  parallelism:\n    - {tp: 1}\n    - {tpp: 2}\n", 6, "axes.parallelism[1].tpp", "'tp'"),
        (TOP + "exclude:\n  - {why: w, moe_bakend: x}\n", 4, "exclude[0].moe_bakend", "did you mean 'moe_backend'"),
        (TOP + "policy:\n  deadlines: {redy_s: 3}\n", 4, "policy.deadlines.redy_s", "did you mean 'ready_s'"),
        (TOP + "policy: {reference: {parallelism: {tq: 1}}}\n", 3, "policy.reference.parallelism.tq", "Accepted: tp"),
        (TOP + "workloads:\n  - isl: 1\n    ols: 2\n", 5, "workloads[0].ols", "did you mean 'osl'"),
        (TOP + "hardware: {gpus: 2}\n", 3, "hardware.gpus", "did you mean 'gpu'"),
        # values
        ("engine: vlm\nmodel: m\n", 1, "engine", "did you mean 'vllm'"),
        ("engine: vlm\nmodel: m\n", 1, "engine", "Accepted: vllm"),
        (
            TOP + "speculative: {method: magic, tokens: 1}\n",
            3,
            "speculative.method",
            "'magic' is not accepted. Accepted",
        ),
        (TOP + "url: localhost:8000\n", 3, "url", "write it as http://127.0.0.1:8000"),
        (TOP + "axes: {url: ['http://a:1', 'ftp://a']}\n", 3, "axes.url[1]", "'ftp://a' is no address"),
        (TOP + "image: a b\n", 3, "image", "no spaces"),
        (TOP + "env: {'A=B': x}\n", 3, "env", "'A=B' is no name of a variable"),
        (TOP + "env: {'': x}\n", 3, "env", "'' is no name of a variable"),
        (TOP + "parallelism: {tp: two}\n", 3, "parallelism.tp", "needs a whole number, got 'two'"),
        (TOP + "parallelism: {tp: 0}\n", 3, "parallelism.tp", "at least 1, got 0"),
        (TOP + "parallelism: {tp: 2.5}\n", 3, "parallelism.tp", "needs a whole number, got 2.5"),
        (TOP + "parallelism: {tp: true}\n", 3, "parallelism.tp", "needs a whole number, got true"),
        (TOP + "parallelism: 2\n", 3, "parallelism", "needs a mapping"),
        (TOP + "axes: {moe_backend: auto}\n", 3, "axes.moe_backend", "needs a list, got 'auto'"),
        (TOP + "axes: {moe_backend: []}\n", 3, "axes.moe_backend", "must not be empty"),
        (TOP + "axes: [moe_backend]\n", 3, "axes", "needs a mapping"),
        (TOP + "extra_args: --eager\n", 3, "extra_args", "needs a list"),
        (TOP + "speculative: {method: mpt, tokens: 2}\n", 3, "speculative.method", "did you mean 'mtp'"),
        (TOP + "speculative: {method: mtp}\n", 3, "speculative.tokens", "missing"),
        (TOP + "speculative: {method: mtp, tokens: 0}\n", 3, "speculative.tokens", "at least 1"),
        (TOP + "workloads: [{preset: sustaned-decode}]\n", 3, "workloads[0].preset", "did you mean 'sustained-decode'"),
        (TOP + "workloads: [{concurrency: [0]}]\n", 3, "workloads[0].concurrency[0]", "at least 1"),
        (TOP + "workloads: []\n", 3, "workloads", "must not be empty"),
        (TOP + "policy: {preflight: yes}\n", 3, "policy.preflight", "needs true or false, got 'yes'"),
        (TOP + "policy: {deadlines: {ready_s: 0}}\n", 3, "policy.deadlines.ready_s", "more than 0"),
        (TOP + "hardware: {link: pcie6}\n", 3, "hardware.link", "Accepted: pcie5, pcie4, pcie3, nvlink, none"),
        (TOP + "hardware: {sm: 120}\n", 3, "hardware.sm", "12.0"),
        (TOP + "env: {A: true}\n", 3, "env", "quotes around true"),
        (TOP + "gpu_memory_utilization: 90\n", 3, "gpu_memory_utilization", "at most 1"),
        # sense
        (TOP + "exclude: [{moe_backend: x}]\n", 3, "exclude[0].why", "missing"),
        (TOP + "exclude: [{moe_backend: x, why: ''}]\n", 3, "exclude[0].why", "must not be empty"),
        (TOP + "exclude: [{why: w}]\n", 3, "exclude[0]", "matches every cell"),
        ("engine: vllm\n", None, "model", "missing"),
        ("model: m\ncells: [{moe_backend: x}]\n", 2, "cells[0].engine", "missing"),
        (TOP + "moe_backend: a\naxes: {moe_backend: [b]}\n", 4, "axes.moe_backend", "at the top and as an axis"),
        (TOP + "axes: {image: [a]}\nlinked: [{image: [b]}]\n", 3, "axes.image", "is an axis twice"),
        (TOP + "linked: [{image: [a, b], engine_version: [1]}]\n", 3, "linked[0]", "image has 2"),
        (TOP + "cells: [{name: a}, {name: a, moe_backend: x}]\n", 3, "cells[1].name", "also the name of cells[0]"),
        (TOP + "policy: {reference: {moe_backend: x}}\n", 3, "policy.reference", "no cell"),
        (TOP + "workloads: [{osl: 5}, {osl: 6}]\n", 3, "workloads[1]", "give it a `name`"),
        (TOP + f"axes: {{max_model_len: {list(range(1, 5002))}}}\n", 3, "axes", "5001 cells; at most 5000"),
        ("engine: vllm\nmodel: ${NOWHERE}\n", 2, "model", "NOWHERE is not set"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place(
    tmp_path: Path, text: str, line: int | None, key: str, words: str
) -> None:
    found = complaints(tmp_path, text)
    assert any((at, name) == (line, key) and words in told for at, name, told in found), found


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "empty"),
        ("# only a comment\n", None, "empty"),
        ("- a\n- b\n", 1, "mapping"),
        ("just words\n", 1, "mapping"),
        (TOP + "image: a\nimage: b\n", 4, "given twice, first in line 3"),
        (TOP + "axes:\n\tmoe_backend: [a]\n", 4, "tab"),
        (TOP + "title: a: b\n", 3, "quotes"),
        (TOP + "title: [a\n", None, "not YAML"),
        (TOP + "title: *nowhere\n", 3, "undefined alias"),
        (TOP + "---\nengine: vllm\n", 3, "one matrix per file"),
        (TOP + "title: !!python/name:os.system x\n", 3, "tag"),
        (TOP + "env: !!set {a}\n", 3, "tag"),
        (TOP + "? [a, b]\n: c\n", 3, "plain word"),
        (TOP + f"max_model_len: {'9' * 400}\n", 3, "400 digits"),
        (TOP + "gpu_memory_utilization: 1e999\n", 3, "not a number that fits"),
        (TOP + "title: a\0b\n", 3, "U+0000"),
        (TOP + "title: a\x1b[31mb\n", 3, "U+001B"),
        (b"engine: vllm\nmodel: \xff\xfe\n", 2, "UTF-8"),
        (TOP + "cells: &a [*a]\n", 3, "contains itself"),
        (TOP + "title: " + "[" * 100 + "]" * 100 + "\n", 3, "nested deeper"),
        (TOP + "title: " + "[" * 20000 + "\n", None, "nested deeper"),
        (TOP + "<<: 3\n", 3, "alias of a mapping"),
        (b"#" * (MAX_BYTES + 1), None, "bytes"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_the_line(
    tmp_path: Path, text: str | bytes, line: int | None, words: str
) -> None:
    found = complaints(tmp_path, text)
    assert any((line is None or at == line) and words in told for at, _, told in found), found


def test_aliases_that_multiply_do_not_fill_the_memory(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "aliases" in complaints(tmp_path, "\n".join(levels))[0][2]


def test_every_problem_of_a_file_is_told_at_once_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = "engine: vlm\nmodle: m\nparallelism: {tp: x}\nexclude: [{moe_backend: a}]\npolicy: {launches: 0}\n"
    found = complaints(tmp_path, text)
    assert [line for line, _, _ in found] == [1, 2, 3, 4, 5]


def test_the_command_line_prints_all_of_them_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("engine: vlm\nmodle: m\n")
    assert main(["plan", str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: 2 problems in ")
    assert f"{file}:1: engine: 'vlm' is not an engine; did you mean 'vllm'?" in shown.err
    assert f"{file}:2: modle: unknown key 'modle'; did you mean 'model'?" in shown.err


def test_a_missing_file_names_the_nearest_beside_it(tmp_path: Path) -> None:
    (tmp_path / "any-moe.yaml").write_text(TOP)
    with pytest.raises(BadFile, match="no such file") as error:
        load_matrix(tmp_path / "anymoe.yaml")
    assert "any-moe.yaml" in (error.value.hint or "")
    with pytest.raises(BadFile, match="a folder"):
        load_matrix(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_whatever_end_in_a_traceback(raw: bytes) -> None:
    with contextlib.suppress(UsageError):
        parse("f.yaml", raw)


KEYS = st.sampled_from(
    ["engine", "model", "axes", "cells", "exclude", "linked", "workloads", "policy", "env", "why", "tp"]
)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=6))
def test_no_tree_of_values_ends_in_a_traceback(tmp_path: Path, data: dict[str, object]) -> None:
    file = tmp_path / "tree.yaml"
    file.write_text(yaml.safe_dump({"engine": "vllm", "model": "m", **data}, allow_unicode=True), encoding="utf-8")
    with contextlib.suppress(UsageError):
        load_matrix(file, environ={}, cwd=tmp_path)
