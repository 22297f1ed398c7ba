"""SGLang, transformers serve, argv templates and the registry."""

from __future__ import annotations

import pytest

from sweeper.core.errors import UsageError
from sweeper.core.values import Cell, LaunchPlan, Parallelism, Speculative, Unsupported
from sweeper.engines import registry


def plan_of(engine: str, **changes: object) -> LaunchPlan:
    plan = registry.get(engine).plan(Cell(**{"engine": engine, "model": "org/model", **changes}))  # type: ignore[arg-type]
    assert isinstance(plan, LaunchPlan), plan
    return plan


def refusal(engine: str, **changes: object) -> str:
    plan = registry.get(engine).plan(Cell(**{"engine": engine, "model": "org/model", **changes}))  # type: ignore[arg-type]
    assert isinstance(plan, Unsupported)
    return plan.reason


def after(plan: LaunchPlan, flag: str) -> str:
    return plan.argv[plan.argv.index(flag) + 1]


def test_every_engine_of_the_issue_is_registered() -> None:
    assert set(registry.names()) == {"vllm", "sglang", "transformers", "command"}


def test_an_unknown_engine_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        registry.get("sglan")
    assert caught.value.hint == "did you mean sglang?"


def test_sglang_names_its_backends_and_sizes() -> None:
    plan = plan_of(
        "sglang",
        moe_backend="flashinfer_cutlass",
        linear_backend="marlin",
        quantization="nvfp4",
        quantization_flag="modelopt_fp4",
        parallelism=Parallelism(tp=4, ep=4),
        max_model_len=8192,
        gpu_memory_utilization=0.8,
    )
    assert plan.argv[:3] == ("python3", "-m", "sglang.launch_server")
    assert after(plan, "--moe-runner-backend") == "flashinfer_cutlass"
    assert after(plan, "--fp4-gemm-backend") == "marlin"
    assert (after(plan, "--tp-size"), after(plan, "--ep-size")) == ("4", "4")
    assert after(plan, "--context-length") == "8192"
    assert {"--disable-radix-cache", "--enable-metrics"} <= set(plan.argv)
    assert plan.gpus == 4


def test_sglang_drafts_a_chain_of_n_tokens() -> None:
    plan = plan_of("sglang", speculative=Speculative(method="mtp", tokens=3, moe_backend="triton"))
    assert after(plan, "--speculative-algorithm") == "NEXTN"
    shape = ["--speculative-num-steps", "--speculative-eagle-topk", "--speculative-num-draft-tokens"]
    assert [after(plan, flag) for flag in shape] == ["3", "1", "4"]
    assert after(plan, "--speculative-moe-runner-backend") == "triton"


def test_sglang_takes_the_authors_tree_shape() -> None:
    spec = Speculative(method="mtp", tokens=4, extra=(("num_draft_tokens", "6"), ("eagle_topk", "2")))
    plan = plan_of("sglang", speculative=spec)
    assert (after(plan, "--speculative-num-draft-tokens"), after(plan, "--speculative-eagle-topk")) == ("6", "2")


def test_sglang_refuses_what_it_cannot_say() -> None:
    assert "suffix" in refusal("sglang", speculative=Speculative(method="suffix", tokens=2))
    assert "--fp4-gemm-backend" in refusal("sglang", linear_backend="cutlass", quantization="int4")


def test_sglang_in_a_container_relies_on_no_entry_point() -> None:
    plan = plan_of("sglang", image="lmsysorg/sglang:v0.5.23", model="/data/m")
    assert plan.entrypoint == ("python3",)
    assert after(plan, "--model-path") == "/models/m"
    assert plan.shm_bytes == 32 * 1024**3


def test_transformers_serves_a_bitsandbytes_model_under_its_own_path() -> None:
    plan = plan_of("transformers", model="/data/Qwen2.5-3B", quantization="nf4", python="/env/bin/python3")
    assert plan.argv[:3] == ("/env/bin/transformers", "serve", "/data/Qwen2.5-3B")
    assert after(plan, "--quantization") == "bnb-4bit"
    assert plan.served_model == "/data/Qwen2.5-3B"
    assert plan.metrics_path is None


def test_transformers_keeps_the_number_format_that_the_cell_names() -> None:
    assert after(plan_of("transformers", quantization="fp16"), "--dtype") == "float16"
    assert "--quantization" not in plan_of("transformers", quantization="bf16").argv
    assert after(plan_of("transformers", image="x/transformers-cpu"), "--device") == "cpu"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"parallelism": Parallelism(tp=2)}, "one process"),
        ({"moe_backend": "marlin"}, "no MoE backend"),
        ({"linear_backend": "cutlass"}, "no linear backend"),
        ({"speculative": Speculative(method="mtp", tokens=1)}, "does not speculate"),
        ({"quantization_flag": "awq"}, "bnb-4bit"),
    ],
)
def test_transformers_says_what_it_does_not_have(changes: dict[str, object], part: str) -> None:
    assert part in refusal("transformers", **changes)


DS4 = ("./ds4-server", "--model", "{model}", "--host", "{host}", "--port", "{port}", "--ctx", "{max_model_len}")


def test_a_template_is_filled_and_port_and_host_are_left_to_the_launcher() -> None:
    plan = plan_of("command", command=DS4, model="/data/m.gguf", max_model_len=32768)
    assert plan.argv == (
        "./ds4-server",
        "--model",
        "/data/m.gguf",
        "--host",
        "{host}",
        "--port",
        "{port}",
        "--ctx",
        "32768",
    )


def test_json_in_a_template_needs_no_escaping() -> None:
    plan = plan_of("command", command=("serve", '{"tp": {tp}, "x": {}}'), parallelism=Parallelism(tp=2))
    assert plan.argv[1] == '{"tp": 2, "x": {}}'


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, "needs `command`"),
        ({"command": DS4}, "asks for {max_model_len}"),
        ({"command": ("s", "{port}"), "moe_backend": "marlin"}, "no {moe_backend}"),
        ({"command": ("s", "{port}"), "parallelism": Parallelism(tp=2)}, "no {tp}"),
        ({"command": ("s", "{port}"), "speculative": Speculative(method="mtp", tokens=1)}, "no {spec_tokens}"),
    ],
)
def test_an_axis_that_the_template_has_no_place_for_is_not_swept_in_name_only(
    changes: dict[str, object], part: str
) -> None:
    assert part in refusal("command", **changes)


def test_a_template_in_a_container_replaces_the_entry_point() -> None:
    plan = plan_of("command", command=("llama-server", "-m", "{model}"), image="llama:server", model="/data/m.gguf")
    assert plan.entrypoint == ()
    assert plan.argv == ("llama-server", "-m", "/models/m.gguf")


@pytest.mark.parametrize("engine", ["sglang", "transformers", "command"])
def test_attaching_starts_nothing(engine: str) -> None:
    assert plan_of(engine, url="http://127.0.0.1:9000").argv == ()


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers", "command"])
def test_every_engine_reads_facts_off_lines(engine: str) -> None:
    lines = ["INFO:     Application startup complete."]
    assert registry.get(engine).effective(lines).ready
