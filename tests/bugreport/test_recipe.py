"""Which canary stands in for a model, and what is said where it cannot."""

from __future__ import annotations

from typing import Any

from sweeper import catalogue
from sweeper.bugreport.case import Case
from sweeper.bugreport.issue import issue
from sweeper.bugreport.recipe import portable, recipe_of
from sweeper.bugreport.templates import forms
from sweeper.core.values import Cell, Parallelism, Speculative
from sweeper.core.verdicts import Cause, Outcome, Phase, Verdict


def case(cell: Cell, cause: str = "segfault", phase: Phase = Phase.READY, **more: Any) -> Case:
    verdict = Verdict(cell_id="c", trial="c-1", outcome=Outcome.FAIL, phase=phase, cause=Cause(id=cause, means=""))
    name = catalogue.find(cell.model)
    fields: dict[str, Any] = {
        "trial": "c-1", "cell": cell, "verdict": verdict, "started_utc": "", "sweeper": "0", "host": {}, "launch": {},
        "on_canary": False, "log": "", "log_cut": False, "requested": {}, "effective": {}, "gpus": (), "rows": (),
        "versions": {}, "model_config": catalogue.config(name) if name else None, "canary_made": None,
    }  # fmt: skip
    return Case(**{**fields, **more})


def test_a_known_model_gets_a_canary_of_its_geometry_and_format() -> None:
    recipe = recipe_of(case(Cell(engine="vllm", model="deepseek-ai/DeepSeek-V3", quantization="nvfp4")))
    assert (recipe.kind, recipe.quant, recipe.golden) == ("like", "nvfp4", False)
    assert recipe.config is not None
    assert recipe.config["n_routed_experts"] == 256


def test_wrong_numbers_need_golden_vectors() -> None:
    assert recipe_of(case(Cell(engine="vllm", model="deepseek-ai/DeepSeek-V3"), phase=Phase.SANITY)).golden


def test_pipeline_stages_get_layers_of_their_own() -> None:
    cell = Cell(engine="vllm", model="deepseek-ai/DeepSeek-V3", parallelism=Parallelism(pp=4))
    assert recipe_of(case(cell)).layers == 8


def test_mtp_asks_for_the_extra_layer() -> None:
    cell = Cell(engine="vllm", model="deepseek-ai/DeepSeek-V3", speculative=Speculative(method="mtp", tokens=1))
    assert recipe_of(case(cell)).mtp


def test_an_unknown_geometry_is_said() -> None:
    recipe = recipe_of(case(Cell(engine="vllm", model="nobody/Nothing-1B")))
    assert recipe.kind == "speaking"
    assert "not known" in recipe.notes[0]


def test_a_format_the_builder_lacks_is_said() -> None:
    recipe = recipe_of(case(Cell(engine="vllm", model="deepseek-ai/DeepSeek-V3", quantization="int8")))
    assert recipe.quant == "bf16"
    assert "no int8" in recipe.notes[0]


def test_a_failure_of_the_real_size_is_said_to_need_the_weights() -> None:
    recipe = recipe_of(case(Cell(engine="vllm", model="deepseek-ai/DeepSeek-V3"), cause="cuda-oom-weights"))
    assert "real checkpoint" in recipe.notes[0]


def test_a_server_of_somebody_else_has_no_reproducer() -> None:
    assert recipe_of(case(Cell(engine="vllm", model="m", url="http://127.0.0.1:1"))).kind == "none"


def test_the_cell_of_a_report_names_no_path_of_its_machine() -> None:
    cell = Cell(
        engine="command", model="/data/m", python="/data/venv/bin/python", command=("/data/venv/bin/python3.11", "s.py")
    )
    found = portable(case(cell))
    assert (found.model, found.python, found.command) == ("./canary", None, ("{python}", "s.py"))


def test_the_image_is_kept_for_a_container() -> None:
    found = portable(case(Cell(engine="vllm", model="m", image="vllm/vllm-openai:v0.32.0")))
    assert (found.launcher, found.image) == ("docker", "vllm/vllm-openai:v0.32.0")


def test_a_report_from_inside_a_container_does_not_call_itself_bare_metal() -> None:
    told = {}
    for inside in (True, False):
        found = case(Cell(engine="vllm", model="m"), host={"container": inside})
        told[inside] = issue(found, forms()["cutlass"], recipe_of(found))
    assert "Environment location: Docker" in told[True]
    assert "Environment location: Bare-metal" in told[False]
