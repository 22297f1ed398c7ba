"""Matrix files that are right: what is written becomes these cells, workloads and policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.config import load_matrix
from sweeper.core.values import Cell, Matrix, Parallelism, Speculative

TOP = "engine: vllm\nmodel: org/m\n"


@pytest.fixture
def load(tmp_path: Path):
    def read(text: str, **environ: str) -> Matrix:
        file = tmp_path / "sweep.yaml"
        file.write_text(text, encoding="utf-8")
        return load_matrix(file, environ=environ, cwd=tmp_path)

    return read


def labels(matrix: Matrix) -> list[str]:
    return [cell.label() for cell in matrix.cells]


def test_two_keys_are_a_matrix_of_one_cell(load) -> None:
    matrix = load(TOP)
    assert matrix.cells == (Cell(engine="vllm", model="org/m"),)
    assert (matrix.name, matrix.workloads[0].preset, matrix.policy.launches) == ("sweep", "sustained-decode", 1)


def test_axes_multiply_in_the_order_written(load) -> None:
    matrix = load(TOP + "axes:\n  parallelism: [{tp: 2}, {tp: 1}]\n  moe_backend: [auto, Triton]\n")
    assert labels(matrix) == ["vllm auto tp2", "vllm triton tp2", "vllm auto tp1", "vllm triton tp1"]


def test_linked_lists_change_together_and_multiply_with_the_axes(load) -> None:
    matrix = load(
        TOP
        + "linked:\n  - {image: [a:1, b:2], engine_version: [0.20, 0.30]}\n"
        + "axes: {moe_backend: [auto, triton]}\n"
    )
    rows = [(cell.image, cell.engine_version, cell.moe_backend) for cell in matrix.cells]
    assert rows == [
        ("a:1", "0.20", "auto"),
        ("a:1", "0.20", "triton"),
        ("b:2", "0.30", "auto"),
        ("b:2", "0.30", "triton"),
    ]


def test_extra_cells_stand_beside_the_product_and_inherit_the_top(load) -> None:
    matrix = load(
        TOP
        + "quantization: fp8\naxes: {moe_backend: [auto, triton]}\ncells:\n"
        + "  - {name: row 3, moe_backend: marlin, parallelism: {tp: 4}}\n"
    )
    assert labels(matrix) == ["vllm auto tp1", "vllm triton tp1", "row 3"]
    assert matrix.cells[2].quantization == "fp8"
    assert matrix.cells[2].parallelism == Parallelism(tp=4)


def test_cells_without_axes_are_all_there_is(load) -> None:
    assert len(load(TOP + "cells: [{moe_backend: triton}]").cells) == 1


def test_a_cell_takes_away_what_the_top_gives(load) -> None:
    matrix = load(
        TOP
        + "env: {A: 1, B: 2}\nspeculative: {method: mtp, tokens: 2}\nimage: i:1\n"
        + "cells: [{speculative: none, image: null, env: {A: null}, extra_args: [--x]}]\n"
    )
    cell = matrix.cells[0]
    assert (cell.speculative, cell.image, cell.env, cell.extra_args) == (None, None, (("B", "2"),), ("--x",))


def test_equal_cells_are_merged_and_keep_their_name(load) -> None:
    matrix = load(TOP + "axes: {moe_backend: [auto, triton]}\ncells: [{name: again, moe_backend: triton}]\n")
    assert labels(matrix) == ["vllm auto tp1", "again"]


def test_speculation_with_engine_specific_keys(load) -> None:
    matrix = load(TOP + "speculative: {method: ngram, tokens: 3, extra: {prompt_lookup_max: 4, on: true, s: x}}\n")
    extra = (("on", "true"), ("prompt_lookup_max", "4"), ("s", "x"))
    assert matrix.cells[0].speculative == Speculative(method="ngram", tokens=3, extra=extra)


RULES = """
axes:
  moe_backend: [auto, cutlass, flashinfer_cutlass]
  parallelism: [{tp: 1}, {tp: 2, ep: 2}]
  speculative: [none, {method: mtp, tokens: 2}]
exclude:
"""


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("{moe_backend: cutlass, why: w}", 8),
        ("{moe_backend: '*cutlass', why: w}", 4),
        ("{moe_backend: [cutlass, auto], parallelism: {tp: 2}, why: w}", 8),
        ("{parallelism: {tp: [1, 2]}, why: w}", 0),
        ("{speculative: none, why: w}", 6),
        ("{speculative: mtp, why: w}", 6),
        ("{speculative: {tokens: 2}, parallelism: {ep: 2}, why: w}", 9),
        ("{quantization: null, moe_backend: auto, why: w}", 8),
    ],
)
def test_exclude_rules_match_by_every_key_given(load, rule: str, left: int) -> None:
    matrix = load(TOP + RULES + f"  - {rule}\n")
    assert len(matrix.cells) == left
    assert len(matrix.author_excluded) == 12 - left
    assert {why for _, why in matrix.author_excluded} == {"w"}


def test_the_first_rule_that_matches_gives_the_reason(load) -> None:
    matrix = load(TOP + RULES + "  - {moe_backend: auto, why: first}\n  - {parallelism: {tp: 1}, why: second}\n")
    assert [why for _, why in matrix.author_excluded].count("first") == 4
    assert [why for _, why in matrix.author_excluded].count("second") == 4


def test_a_rule_that_matches_nothing_is_told_with_its_line(load) -> None:
    matrix = load(TOP + "exclude:\n  - {moe_backend: marlin, why: w}\n")
    assert matrix.notes[0].endswith("sweep.yaml:4: exclude[0] matches no cell")


def test_paths_take_variables_and_become_absolute_but_hub_ids_stay(load, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    text = "engine: vllm\npython: ${PY:-venv/bin/python}\naxes: {model: ['${M:-.sweeper/m}', folder, org/m, ~/m]}\n"
    matrix = load(text)
    models = [cell.model for cell in matrix.cells]
    assert models == [str(tmp_path / ".sweeper/m"), str(tmp_path / "folder"), "org/m", str(Path.home() / "m")]
    assert matrix.cells[0].python == str(tmp_path / "venv/bin/python")
    assert load(text, M="/x/../y").cells[0].model == "/y"
    assert load(text, PY="python3").cells[0].python == "python3"


def test_numbers_in_text_keep_their_spelling_and_old_booleans_are_words(load) -> None:
    matrix = load(
        "engine: vllm\nmodel: org/m\nengine_version: 0.10\nenv: {A: 1e3, B: 0x10, C: on}\n"
        "cells: [{name: no}, {name: 010, moe_backend: triton}]\nhardware: {sm: 12.0}\n"
    )
    assert matrix.cells[0].engine_version == "0.10"
    assert matrix.cells[0].env == (("A", "1e3"), ("B", "0x10"), ("C", "on"))
    assert labels(matrix) == ["no", "010"]
    assert matrix.hardware.sm == "12.0"


def test_anchors_and_merge_keys_work(load) -> None:
    matrix = load(
        TOP + "cells:\n  - &a {parallelism: {tp: 2}, moe_backend: triton}\n  - {<<: *a, moe_backend: marlin}\n"
    )
    assert labels(matrix) == ["vllm triton tp2", "vllm marlin tp2"]


def test_one_length_written_over_all_rungs_leaves_one_rung(load) -> None:
    ladder = TOP + "workloads:\n  - {name: ctx, preset: context-ladder, isl: 1024}\n"
    assert [(one.name, one.isl) for one in load(ladder).workloads] == [("ctx", 1024)]


def test_a_preset_brings_its_workloads_and_the_file_changes_parts_of_them(load) -> None:
    matrix = load(
        TOP + "workloads:\n  - {preset: energy-e2e}\n  - {preset: sustained-decode, name: d, osl: 64, concurrency: 4}\n"
    )
    told = [(work.name, work.isl, work.osl, work.concurrency, work.requests) for work in matrix.workloads]
    assert told == [("e2e256", 128, 256, (1,), 10), ("e2e512", 128, 512, (1,), 10), ("d", 128, 64, (4,), None)]


def test_policy_and_hardware(load) -> None:
    matrix = load(
        TOP
        + "policy: {launches: 3, confirm_top: 2, order_seed: 7, preflight: true, deadlines: {ready_s: 60},"
        + " reference: {parallelism: {tp: 1}, speculative: none}}\n"
        + "hardware: {gpu: X, count: 4, memory_gib: 96, sm: '12.0', link: pcie5}\n"
    )
    policy = matrix.policy
    assert (policy.launches, policy.confirm_top, policy.order_seed, policy.preflight) == (3, 2, 7, True)
    assert (policy.deadlines.ready_s, policy.deadlines.stop_s) == (60.0, 60.0)
    assert policy.reference == (("tp", "1"), ("speculative.method", "none"))
    assert (matrix.hardware.count, matrix.hardware.memory_gib) == (4, 96.0)
