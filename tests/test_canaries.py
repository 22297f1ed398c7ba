"""Which canary stands for which cell, and what its check asks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import canaries
from sweeper.canaries import BATCHES, Builder, check_canary, make_preflight
from sweeper.canary.golden import FILE_NAME, save
from sweeper.canary.make import Order
from sweeper.canary.speaking import speaking_dir
from sweeper.core.errors import EnvironmentNotReady, UsageError
from sweeper.core.values import Cell, Hardware, Matrix, Parallelism, Policy, Speculative
from tests.adapters.checking_server import Answer, golden, served, vllm

CELL = Cell(engine="vllm", model="/models/big", quantization="bf16")


def matrix(**policy: object) -> Matrix:
    return Matrix(
        name="m", path="m.yaml", cells=(CELL,), author_excluded=(), workloads=(), hardware=Hardware(),
        policy=Policy(**policy),  # type: ignore[arg-type]
    )  # fmt: skip


def quiet(text: str) -> None:
    pass


def test_without_a_word_in_the_policy_there_is_no_preflight() -> None:
    assert make_preflight(matrix(), quiet) is None


def test_naming_a_canary_asks_for_the_preflight() -> None:
    found = make_preflight(matrix(canary=str(speaking_dir())), quiet)
    assert found is not None
    assert found.canary_of(CELL) == speaking_dir()
    assert not found.like_the_model


def test_a_canary_that_is_not_there_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint at"):
        make_preflight(matrix(canary=str(tmp_path)), quiet)


def test_a_checkpoint_without_golden_vectors_is_no_canary(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="golden"):
        make_preflight(matrix(canary=str(tmp_path)), quiet)


def test_a_canary_in_another_number_format_judges_no_cell() -> None:
    found = make_preflight(matrix(preflight=True, canary=str(speaking_dir())), quiet)
    assert found is not None
    told = found.canary_of(replace(CELL, quantization="nvfp4"))
    assert isinstance(told, str)
    assert "bf16" in told
    # The flag quantises the canary as it quantises the model.
    assert found.canary_of(replace(CELL, quantization="fp8", quantization_flag="fp8")) == speaking_dir()


def test_one_canary_is_built_per_model_format_and_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Order] = []
    monkeypatch.setattr("sweeper.canary.make.make", orders.append)
    build = Builder(quiet, tmp_path)
    mtp = replace(CELL, speculative=Speculative(method="mtp", tokens=1))
    ngram = replace(CELL, speculative=Speculative(method="ngram", tokens=3), moe_backend="triton")
    folders = [build(cell) for cell in (CELL, ngram, mtp, replace(CELL, quantization="nvfp4"), mtp)]
    assert [(order.quant, order.mtp) for order in orders] == [("bf16", False), ("bf16", True), ("nvfp4", False)]
    assert len(set(folders)) == 3
    assert folders[0] == folders[1]


def test_a_canary_for_pipeline_stages_has_layers_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Order] = []
    monkeypatch.setattr("sweeper.canary.make.make", orders.append)
    build = Builder(quiet, tmp_path)
    for stages in (1, 2, 4):
        build(replace(CELL, parallelism=Parallelism(pp=stages)))
    assert [order.layers for order in orders] == [None, 4, 8]


def test_without_torch_here_the_engines_own_interpreter_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_torch(order: Order) -> None:
        raise EnvironmentNotReady("building a canary needs torch")

    monkeypatch.setattr("sweeper.canary.make.make", no_torch)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nshift; echo "$@" >"$(dirname "$0")/asked"\n')
    python.chmod(0o755)
    cell = replace(CELL, model="Qwen3-30B-A3B", python=str(python), quantization="modelopt_fp4")
    assert Builder(quiet, tmp_path / "out")(cell) == tmp_path / "out" / "Qwen3-30B-A3B-nvfp4"
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "build"
    assert asked[asked.index("--quant") + 1] == "nvfp4"
    python.write_text("#!/bin/sh\necho error: building a canary needs torch >&2; exit 3\n")
    told = Builder(quiet, tmp_path / "other")(cell)
    assert isinstance(told, str)
    assert told.endswith("builds no canary: building a canary needs torch")


def test_a_canary_of_an_earlier_sweep_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(order: Order) -> None:
        raise AssertionError(order)

    monkeypatch.setattr("sweeper.canary.make.make", never)
    folder = tmp_path / "models-big-bf16"
    folder.mkdir()
    save(golden(), folder / FILE_NAME)
    assert Builder(quiet, tmp_path)(CELL) == folder


def test_a_canary_that_cannot_be_built_is_told_once_and_holds_nothing_up(tmp_path: Path) -> None:
    said: list[str] = []
    build = Builder(said.append, tmp_path)
    cell = replace(CELL, model="no/such-model")
    for _ in range(2):
        told = build(cell)
        assert isinstance(told, str)
        assert "no canary could be built" in told
    assert sum("tried on the real weights" in line for line in said) == 1


def test_weights_that_a_flag_quantises_have_a_canary_in_bf16(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    cell = replace(CELL, model=str(tmp_path), quantization="fp8", quantization_flag="fp8")
    assert canaries._stored_as(cell) == "bf16"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "quantization_config": {}}))
    assert canaries._stored_as(cell) == "fp8"


def test_the_check_looks_at_enough_generations_and_at_more_than_one_batch_size(tmp_path: Path) -> None:
    save(golden(), tmp_path / FILE_NAME)
    with served(lambda route, body: vllm(body)) as url:
        found = check_canary(url, "fake", tmp_path)
    assert found.verdict == "right"
    # 1 - 0.96^74 = 95 %
    assert found.figures["generations"] >= 74
    assert min(BATCHES) == 1
    assert max(BATCHES) > 4


def test_one_generation_in_twenty_five_that_collapses_is_seen(tmp_path: Path) -> None:
    save(golden(text=True), tmp_path / FILE_NAME)
    asked = 0

    def answer(route: str, body: dict[str, object]) -> Answer:
        nonlocal asked
        status, content = vllm(body)
        if body.get("prompt_logprobs") is None:
            asked += 1
            if asked % 25 == 0:
                content["choices"][0]["text"] = "!" * 60
        return status, content

    with served(answer) as url:
        found = check_canary(url, "fake", tmp_path)
    assert found.verdict != "right"
    assert found.figures["degenerate"] >= 2


def test_a_folder_without_golden_vectors_is_unchecked(tmp_path: Path) -> None:
    assert check_canary("http://127.0.0.1:9", "fake", tmp_path).verdict == "unchecked"


def test_a_python_without_torch_costs_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the `canary` extra is the usual one."""
    monkeypatch.setattr("sweeper.canary.needs.PACKAGES", ("torch_that_nobody_has",))
    told = Builder(quiet, tmp_path / "out")(replace(CELL, model="Qwen3-30B-A3B"))
    assert isinstance(told, str)
    assert "needs torch_that_nobody_has" in told


def test_a_builder_that_breaks_costs_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(order: Order) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("sweeper.canary.make.make", broken)
    told = Builder(quiet, tmp_path)(CELL)
    assert told == "no canary could be built: RuntimeError: no such operator"


def test_a_half_built_canary_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Order] = []
    monkeypatch.setattr("sweeper.canary.make.make", orders.append)
    folder = tmp_path / "models-big-bf16"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert Builder(quiet, tmp_path)(CELL) == folder
    assert [order.out for order in orders] == [folder]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("quantization", "config", "wanted"),
    [
        ("fp8-dynamic", {"quant_method": "compressed-tensors"}, "fp8"),
        ("fp8-dynamic", None, "fp8"),
        ("modelopt_fp4", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ("fp8", {"quant_method": "modelopt", "quant_algo": "FP8"}, "stored as fp8 with one scale per tensor"),
        ("fp8", {"quant_method": "fp8"}, "stored as fp8 with one scale per tensor"),
        ("int4", {"quant_method": "awq"}, "stored as awq"),
        ("mxfp8", None, "stored as mxfp8"),
        ("something-new", None, "stored as something-new"),
    ],
)
def test_a_canary_in_the_models_own_format_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str, config: dict[str, str] | None, wanted: str
) -> None:
    """A backend that another scheme of scales lacks must not be held against the model."""
    orders: list[Order] = []
    monkeypatch.setattr("sweeper.canary.make.make", orders.append)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"quantization_config": config} if config else {}))
    found = Builder(quiet, tmp_path / "out")(replace(CELL, model=str(model), quantization=quantization))
    assert [order.quant for order in orders] == ([] if isinstance(found, str) else [wanted])
    assert not isinstance(found, str) or wanted in found
