"""The matrices in matrices/: valid, documented, current, and what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from sweeper.config import load_matrix
from sweeper.core.values import Matrix
from sweeper.matrix.schema import schema_text
from sweeper.plan.rows import make_plan

FOLDER = Path(__file__).parent.parent / "matrices"
FILES = sorted(FOLDER.glob("*.yaml"))
SCHEMA = FOLDER / "matrix.schema.json"


def shipped(name: str) -> Matrix:
    return load_matrix(FOLDER / f"{name}.yaml", environ={})


def test_the_schema_in_the_folder_is_the_one_of_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "the schema is old; renew it: sweeper schema --out matrices/matrix.schema.json"
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_matrix_loads_plans_and_agrees_with_the_schema(file: Path) -> None:
    matrix = load_matrix(file, environ={})
    plan = make_plan(matrix)
    assert [row for row in plan.rows if row.status != "excluded"]
    assert not matrix.notes or matrix.name == "any-moe"
    jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), json.loads(schema_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_matrix_begins_with_its_schema_and_a_question(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=matrix.schema.json"
    head = " ".join(line.removeprefix("#").strip() for line in lines[1:8] if line.startswith("#"))
    assert "?" in head or file.stem == "any-moe"
    assert load_matrix(file, environ={}).title


@pytest.mark.parametrize("wrong", [{"engine": "vlm"}, {"parallelism": {"tp": 0}}, {"exclude": [{"engine": "vllm"}]}])
def test_the_schema_refuses_what_the_loader_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"engine": "vllm", "model": "m", **wrong}, json.loads(schema_text()))


ROWS = (
    "Marlin W4A16, TP=4, no MTP",
    "Marlin, TP=2 + PP=2",
    "Marlin, MTP=2",
    "CUTLASS (Docker), best",
    "CUTLASS (Docker), worst",
    "CUTLASS native",
    "auto",
)


def test_the_published_sweep_has_its_16_configurations_and_its_seven_rows_by_name() -> None:
    matrix = shipped("qwen3.5-397b-nvfp4-sm120")
    labels = [cell.label() for cell in matrix.cells]
    assert len(labels) == len(set(labels)) == 16
    assert set(ROWS) <= set(labels)
    assert {cell.engine for cell in matrix.cells} == {"vllm", "sglang"}
    assert all(cell.image is None or ":" in cell.image for cell in matrix.cells)
    assert (matrix.hardware.count, matrix.hardware.sm, matrix.hardware.link) == (4, "12.0", "pcie5")


def test_the_published_model_fits_on_four_cards_and_not_on_two() -> None:
    plan = make_plan(shipped("qwen3.5-397b-nvfp4-sm120"))
    first = plan.rows[0]
    assert first.memory is not None
    assert first.memory.fits
    assert 50 < first.memory.parts["weights"] / 2**30 < 60
    assert "does not fit on 2 GPUs" in plan.sizes[0]
    assert "fits at TP=4 on 4 GPUs" in plan.sizes[0]


def test_the_quickstart_has_eight_cells_over_every_axis_it_promises() -> None:
    cells = shipped("quickstart-cpu").cells
    assert len(cells) >= 8
    assert {cell.parallelism.tp for cell in cells} == {1, 2}
    assert {cell.parallelism.pp for cell in cells} == {1, 2}
    assert {cell.parallelism.ep for cell in cells} == {1, 2}
    assert {cell.speculative.method if cell.speculative else None for cell in cells} == {None, "ngram"}
    assert {"auto", "flashinfer_cutlass"} <= {cell.moe_backend for cell in cells}


@pytest.mark.parametrize("name", ["quickstart-cpu", "quickstart-cpu-short"])
def test_the_quickstart_excludes_nothing_so_that_the_engine_speaks_for_itself(name: str) -> None:
    assert all(row.status != "excluded" for row in make_plan(shipped(name)).rows)


def test_the_short_quickstart_is_a_part_of_the_long_one() -> None:
    long = {row.cell_id for row in make_plan(shipped("quickstart-cpu")).rows}
    assert {row.cell_id for row in make_plan(shipped("quickstart-cpu-short")).rows} <= long


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("energy-e2e-qwen2.5-3b", "energy-e2e"),
        ("energy-phases-bnb", "energy-phases"),
        ("ds4-context-ladder", "context-ladder"),
        ("serving-16x64x256-mig", "serving-16x64x256"),
    ],
)
def test_each_protocol_has_its_matrix(name: str, preset: str) -> None:
    assert {work.preset for work in shipped(name).workloads} == {preset}


def test_the_phase_table_has_three_models_in_three_precisions() -> None:
    cells = shipped("energy-phases-bnb").cells
    assert len(cells) == 9
    assert {cell.quantization_flag for cell in cells} == {None, "bnb-8bit", "bnb-4bit"}


def test_variables_replace_the_model_and_the_interpreter() -> None:
    environ = {"SWEEPER_MODEL": "/models/tiny", "SWEEPER_ENGINE_PYTHON": "/venv/bin/python"}
    cell = load_matrix(FOLDER / "quickstart-cpu.yaml", environ=environ).cells[0]
    assert (cell.model, cell.python) == ("/models/tiny", "/venv/bin/python")
