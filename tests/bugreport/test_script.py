"""The script of a report: valid shell, the right server, no path of the machine it was made on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sweeper.bugreport.recipe import Recipe, canary_arguments
from sweeper.bugreport.script import script, words_for_shell
from sweeper.core.values import Cell, LaunchPlan, Parallelism, Speculative
from sweeper.core.verdicts import Cause
from sweeper.engines import registry

CAUSE = Cause(id="segfault", means="")
NATIVE = Cell(
    engine="vllm", model="./canary", python="@PYTHON@", launcher="process",
    speculative=Speculative(method="mtp", tokens=2), extra_args=("--compilation-config", '{"level": "$HOME `id`"}'),
)  # fmt: skip
DOCKER = Cell(
    engine="sglang", model="./canary", image="lmsysorg/sglang:v0.5", launcher="docker", parallelism=Parallelism(tp=2),
    env=(("NCCL_DEBUG", "it's a $test"),),
)  # fmt: skip


def text_of(cell: Cell, recipe: Recipe, literals: tuple[str, ...] = ("Segmentation fault",)) -> str:
    plan = registry.get(cell.engine).plan(cell)
    assert isinstance(plan, LaunchPlan), plan
    return script(plan, recipe, CAUSE, literals, "ready")


@pytest.mark.parametrize("cell", [NATIVE, DOCKER], ids=["native", "docker"])
@pytest.mark.parametrize("literals", [(), ('it\'s a "crash" $x `y`', "second")], ids=["none", "two"])
def test_it_is_valid_shell(cell: Cell, literals: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "reproduce.sh"
    path.write_text(text_of(cell, Recipe(kind="like", quant="nvfp4", mtp=True), literals), "utf-8")
    bash = shutil.which("bash") or "/bin/bash"
    done = subprocess.run([bash, "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_container_gets_the_canary_the_boards_and_its_settings() -> None:
    text = text_of(DOCKER, Recipe(kind="like", quant="nvfp4"))
    (line,) = [line for line in text.splitlines() if line.startswith("docker run --rm --name")]
    for part in ("--gpus all", '-v "$PWD/work/canary":/models/canary:ro', '"$IMAGE"', "127.0.0.1:$PORT:8000", "--tp"):
        assert part in line, line
    assert "lmsysorg/sglang:v0.5" in text


def test_the_shell_expands_nothing_of_what_the_matrix_says() -> None:
    line = words_for_shell(["--x", '{"a": "$HOME `id`"}', "http://{host}:{port}/$HOME"])
    bash = shutil.which("bash") or "/bin/bash"
    told = subprocess.run(
        [bash, "-c", f"HOST=h PORT=1; printf '%s|' {line}"], capture_output=True, text=True, check=True
    )
    assert told.stdout == '--x|{"a": "$HOME `id`"}|http://h:1/$HOME|'


def test_the_canary_is_asked_for_as_the_recipe_says() -> None:
    recipe = Recipe(kind="like", quant="fp8-block", layers=4, mtp=True, golden=True)
    words = canary_arguments(recipe, "c.json", "out")
    assert words == ["build", "--like", "c.json", "--quant", "fp8-block", "--out", "out", "--layers", "4", "--mtp"]
