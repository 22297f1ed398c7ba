"""vLLM cells as commands, version by version."""

from __future__ import annotations

import json

import pytest

from sweeper.core.values import Cell, LaunchPlan, Parallelism, Speculative, Unsupported
from sweeper.engines import registry

VLLM = registry.get("vllm")


def cell(**changes: object) -> Cell:
    return Cell(**{"engine": "vllm", "model": "org/model", **changes})  # type: ignore[arg-type]


def planned(**changes: object) -> LaunchPlan:
    plan = VLLM.plan(cell(**changes))
    assert isinstance(plan, LaunchPlan), plan
    return plan


def refused(**changes: object) -> str:
    plan = VLLM.plan(cell(**changes))
    assert isinstance(plan, Unsupported)
    return plan.reason


def after(plan: LaunchPlan, flag: str) -> str:
    return plan.argv[plan.argv.index(flag) + 1]


def test_a_native_cell_runs_the_module_of_its_interpreter() -> None:
    plan = planned(python="/env/bin/python")
    assert plan.argv[:3] == ("/env/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    assert (after(plan, "--port"), after(plan, "--host")) == ("{port}", "{host}")
    assert plan.image is None
    assert plan.entrypoint is None


def test_pins_keep_cells_comparable_and_extra_arguments_come_last() -> None:
    plan = planned(extra_args=("--seed", "7", "--enable-prefix-caching"))
    assert "--no-enable-prefix-caching" in plan.argv
    assert plan.argv[-3:] == ("--seed", "7", "--enable-prefix-caching")


def test_a_container_gets_its_entry_point_and_the_model_folder_read_only() -> None:
    plan = planned(image="vllm/vllm-openai:v0.33.0", model="/data/Model-NVFP4")
    assert plan.entrypoint == ("python3",)
    assert plan.argv[:2] == ("-m", "vllm.entrypoints.openai.api_server")
    assert after(plan, "--model") == "/models/Model-NVFP4"
    assert [(m.source, m.target, m.read_only) for m in plan.mounts] == [
        ("/data/Model-NVFP4", "/models/Model-NVFP4", True)
    ]
    assert plan.ipc_host


def test_the_launcher_of_the_cell_decides_where_image_and_interpreter_are_both_named() -> None:
    both = {"image": "img", "python": "/env/bin/python"}
    assert planned(**both).image is None
    assert planned(**both, launcher="docker").image == "img"
    assert planned(**both, launcher="process").argv[0] == "/env/bin/python"


def test_a_model_folder_keeps_the_engine_off_the_hub() -> None:
    assert planned(model="./model").env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in planned().env


def test_the_matrix_has_the_last_word_on_variables() -> None:
    assert planned(env=(("DO_NOT_TRACK", "0"),)).env["DO_NOT_TRACK"] == "0"


@pytest.mark.parametrize("version", ["0.17.1", "0.24.0", "0.33.0", None])
def test_the_backend_is_a_flag_since_0_17(version: str | None) -> None:
    plan = planned(moe_backend="FlashInfer-CUTLASS", engine_version=version, quantization="nvfp4")
    assert after(plan, "--moe-backend") == "flashinfer_cutlass"
    assert not any(name.startswith("VLLM_USE_FLASHINFER") for name in plan.env)


@pytest.mark.parametrize(
    ("family", "backend", "expected"),
    [
        (
            "nvfp4",
            "flashinfer_cutlass",
            {"VLLM_USE_FLASHINFER_MOE_FP4": "1", "VLLM_FLASHINFER_MOE_BACKEND": "throughput"},
        ),
        ("nvfp4", "flashinfer_trtllm", {"VLLM_USE_FLASHINFER_MOE_FP4": "1", "VLLM_FLASHINFER_MOE_BACKEND": "latency"}),
        ("nvfp4", "cutlass", {"VLLM_USE_FLASHINFER_MOE_FP4": "0"}),
        ("fp8", "deep_gemm", {"VLLM_USE_DEEP_GEMM": "1"}),
        ("fp8-block", "marlin", {"VLLM_TEST_FORCE_FP8_MARLIN": "1"}),
        ("bf16", "flashinfer_cutlass", {"VLLM_USE_FLASHINFER_MOE_FP16": "1"}),
        ("mxfp4", "marlin", {"VLLM_MXFP4_USE_MARLIN": "1"}),
    ],
)
def test_before_0_17_variables_select_the_backend(family: str, backend: str, expected: dict[str, str]) -> None:
    plan = planned(moe_backend=backend, quantization=family, engine_version="0.16.0")
    assert "--moe-backend" not in plan.argv
    assert expected.items() <= plan.env.items()


def test_a_choice_that_an_old_version_cannot_express_is_unsupported_with_the_version_named() -> None:
    assert "0.14.1 has no --moe-backend" in refused(moe_backend="marlin", quantization="nvfp4", engine_version="0.14.1")
    assert "set `quantization`" in refused(moe_backend="cutlass", engine_version="0.12.0")


def test_the_attention_backend_is_a_variable_until_0_14() -> None:
    assert (
        planned(attention_backend="flashinfer", engine_version="0.14.1").env["VLLM_ATTENTION_BACKEND"] == "FLASHINFER"
    )
    assert (
        after(planned(attention_backend="flashinfer", engine_version="0.15.1"), "--attention-backend") == "FLASHINFER"
    )


def test_the_linear_backend_is_a_flag_since_0_22_and_a_variable_for_nvfp4_before() -> None:
    assert after(planned(linear_backend="cutlass", engine_version="0.22.1"), "--linear-backend") == "cutlass"
    old = planned(linear_backend="flashinfer_cutlass", engine_version="0.17.1", quantization="nvfp4")
    assert old.env["VLLM_NVFP4_GEMM_BACKEND"] == "flashinfer-cutlass"
    assert "no --linear-backend" in refused(linear_backend="marlin", engine_version="0.17.1", quantization="fp8")


def test_parallel_sizes_appear_only_when_they_are_not_one() -> None:
    plan = planned(parallelism=Parallelism(tp=2, pp=2))
    assert (after(plan, "--tensor-parallel-size"), after(plan, "--pipeline-parallel-size")) == ("2", "2")
    assert "--data-parallel-size" not in plan.argv
    assert plan.gpus == 4


def test_expert_parallel_is_all_ranks_or_none() -> None:
    assert "--enable-expert-parallel" in planned(parallelism=Parallelism(tp=2, dp=2, ep=4)).argv
    assert "ep=2 has no spelling" in refused(parallelism=Parallelism(tp=4, ep=2))


def test_speculation_is_one_json_argument() -> None:
    spec = Speculative(method="mtp", tokens=2, moe_backend="auto", extra=(("draft_tensor_parallel_size", "1"),))
    config = json.loads(after(planned(speculative=spec), "--speculative-config"))
    assert config == {
        "method": "mtp", "num_speculative_tokens": 2, "moe_backend": "auto", "draft_tensor_parallel_size": 1
    }  # fmt: skip


def test_a_draft_backend_needs_0_19_1() -> None:
    spec = Speculative(method="mtp", tokens=2, moe_backend="triton")
    assert "0.19.1" in refused(speculative=spec, engine_version="0.18.1")


def test_mtp_had_a_name_per_model_before_0_11() -> None:
    spec = Speculative(method="mtp", tokens=1)
    old = planned(model="deepseek-ai/DeepSeek-V3", speculative=spec, engine_version="0.10.2")
    assert json.loads(after(old, "--speculative-config"))["method"] == "deepseek_mtp"
    assert "speculative.extra.method" in refused(speculative=spec, engine_version="0.10.2")
    named = Speculative(method="mtp", tokens=1, extra=(("method", "my_mtp"),))
    assert (
        json.loads(after(planned(speculative=named, engine_version="0.10.2"), "--speculative-config"))["method"]
        == "my_mtp"
    )


def test_a_draft_model_folder_is_mounted_too() -> None:
    spec = Speculative(method="eagle3", tokens=3, model="/data/draft")
    plan = planned(model="/data/target", image="img", speculative=spec)
    assert {m.target for m in plan.mounts} == {"/models/target", "/models/draft"}
    assert json.loads(after(plan, "--speculative-config"))["model"] == "/models/draft"


@pytest.mark.parametrize(
    "changes",
    [
        {"env": (("VLLM_CPU_KVCACHE_SPACE", "1"),)},
        {"image": "sweeper/vllm-cpu:latest"},
        {"engine_version": "0.32.0+cpu"},
        {"extra_args": ("--device", "cpu")},
    ],
)
def test_a_cpu_build_needs_no_gpu(changes: dict[str, object]) -> None:
    assert planned(**changes, parallelism=Parallelism(tp=2)).gpus == 0


def test_a_server_that_is_up_is_only_asked() -> None:
    plan = planned(url="http://127.0.0.1:8000")
    assert (plan.argv, plan.url, plan.gpus) == ((), "http://127.0.0.1:8000", 0)


def test_context_memory_and_quantization_become_flags() -> None:
    plan = planned(max_model_len=4096, gpu_memory_utilization=0.85, quantization_flag="fp8")
    assert after(plan, "--max-model-len") == "4096"
    assert after(plan, "--gpu-memory-utilization") == "0.85"
    assert after(plan, "--quantization") == "fp8"
