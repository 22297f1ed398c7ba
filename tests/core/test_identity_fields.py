"""Which cell is it: classification of every field, stability, what changes an id."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.core.identity import IDENTITY, RUN_TIME, canonical, cell_id
from sweeper.core.values import Cell, Parallelism, Speculative

BASE = Cell(engine="vllm", model="org/m")


def test_every_field_of_a_cell_is_classified_once() -> None:
    fields = {field.name for field in dataclasses.fields(Cell)}
    assert not fields - IDENTITY - RUN_TIME, "classify the new field in sweeper/core/identity.py"
    assert not (IDENTITY | RUN_TIME) - fields
    assert not IDENTITY & RUN_TIME


def test_the_id_of_a_known_cell_does_not_change_between_releases() -> None:
    cell = Cell(
        engine="vllm",
        model="org/m",
        moe_backend="marlin",
        parallelism=Parallelism(tp=2, pp=2),
        speculative=Speculative(method="mtp", tokens=2),
        env=(("A", "1"),),
    )
    assert canonical(cell) == (
        '{"engine":"vllm","env":{"A":"1"},"identity_version":1,"model":"org/m","moe_backend":"marlin",'
        '"parallelism":{"dp":1,"ep":1,"pp":2,"tp":2},"speculative":{"method":"mtp","tokens":2}}'
    )
    assert cell_id(cell) == "24f04d1941c9"


OTHER = {
    "engine": "sglang",
    "model": "org/n",
    "engine_version": "0.33.0",
    "image": "i:1",
    "python": "/p",
    "command": ("a",),
    "url": "http://127.0.0.1:1",
    "quantization": "fp8",
    "quantization_flag": "fp8",
    "moe_backend": "triton",
    "linear_backend": "cutlass",
    "attention_backend": "FLASH_ATTN",
    "parallelism": Parallelism(tp=2),
    "speculative": Speculative(method="ngram", tokens=1),
    "env": (("A", "1"),),
    "extra_args": ("--x",),
    "max_model_len": 10,
    "gpu_memory_utilization": 0.5,
}


@pytest.mark.parametrize("name", sorted(IDENTITY))
def test_a_field_that_changes_what_is_served_changes_the_id(name: str) -> None:
    assert cell_id(replace(BASE, **{name: OTHER[name]})) != cell_id(BASE)


@pytest.mark.parametrize(("name", "value"), [("name", "row 1"), ("launcher", "docker")])
def test_a_run_time_field_does_not(name: str, value: str) -> None:
    assert cell_id(replace(BASE, **{name: value})) == cell_id(BASE)


@settings(deadline=None)
@given(st.permutations([("A", "1"), ("B", "2"), ("C", "3")]))
def test_the_order_of_variables_does_not_count(env: list[tuple[str, str]]) -> None:
    assert cell_id(replace(BASE, env=tuple(env))) == cell_id(replace(BASE, env=tuple(sorted(env))))


def test_the_order_of_arguments_counts() -> None:
    assert cell_id(replace(BASE, extra_args=("--a", "--b"))) != cell_id(replace(BASE, extra_args=("--b", "--a")))


@settings(deadline=None)
@given(st.text(), st.text())
def test_the_hashed_text_is_json_and_tells_models_apart(one: str, other: str) -> None:
    a, b = replace(BASE, model=one), replace(BASE, model=other)
    assert json.loads(canonical(a))["identity_version"] == 1
    assert (cell_id(a) == cell_id(b)) == (one == other)
