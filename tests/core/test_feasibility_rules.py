"""Which cells are left out before launch, and which only come with a warning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper import catalogue
from sweeper.core.feasibility import check_cell
from sweeper.core.values import Cell, Hardware, Parallelism, Speculative

SM120 = Hardware(gpu="RTX PRO 6000 Blackwell", count=4, memory_gib=95.6, sm="12.0")
H200 = Hardware(gpu="H200", count=8, memory_gib=139.8, sm="9.0")
B200 = Hardware(gpu="B200", count=8, memory_gib=180.0, sm="10.0")
CPU = Hardware(count=0)


def check(
    hardware: Hardware = SM120, model: str | None = None, version: str | None = "0.33.0", **changes: object
) -> tuple[str, str]:
    cell = Cell(**{"engine": "vllm", "model": "m", **changes})  # type: ignore[arg-type]
    geometry = catalogue.geometry(model) if model else None
    found = check_cell(cell, geometry, hardware, version)
    return " | ".join(found.excluded), " | ".join(found.warnings)


def test_a_plain_cell_passes_without_a_word() -> None:
    assert check(moe_backend="marlin", quantization="nvfp4", parallelism=Parallelism(tp=4)) == ("", "")


def test_every_reason_names_its_source() -> None:
    excluded, _ = check(moe_backend="triton", quantization="nvfp4")
    assert excluded.endswith("[vllm/model_executor/layers/fused_moe/oracle/nvfp4.py]")


def test_a_word_that_would_silence_the_rules_is_told() -> None:
    excluded, warned = check(quantization="nvpf4")
    assert excluded == ""
    assert "'nvpf4' is no family known here; did you mean 'nvfp4'?" in warned
    for known in ("modelopt_fp4", "FP8-Block", "awq", None):
        assert check(H200, quantization=known)[1] == ""
    assert "'latest' is no number: rules are those of 0.33.0" in check(version=None, engine_version="latest")[1]
    assert "rules are known from 0.9.0 to 0.33.0" in check(version=None, engine_version="v0.5.4")[1]
    assert check(version=None, engine_version="0.33.7")[1] == ""
    assert check(version=None, engine_version="new", quantization="q2", engine="command", command=("{port}",))[1] == ""


def test_a_command_that_cannot_hear_of_its_port_is_told() -> None:
    own = {"engine": "command", "version": None}
    assert "`command` has no {port}" in check(**own, command=("srv",))[1]
    assert check(**own, command=("srv", "--port={port}"))[1] == ""
    assert check(**own, command=("srv",), env=(("PORT", "{port}"),))[1] == ""
    assert check(**own, url="http://127.0.0.1:1")[1] == ""


@pytest.mark.parametrize(
    ("backend", "version", "part"),
    [
        ("flashinfer_b12x", "0.20.2", "it came with 0.22"),
        ("b12x", "0.28.0", "it came with 0.30"),
        ("batched_triton", "0.26.0", "it came with 0.28"),
        ("flashinfer", "0.33.0", "flashinfer_cutlass"),
        ("nonsense", "0.17.1", "there are auto, triton"),
    ],
)
def test_a_value_that_the_version_does_not_know_is_excluded(backend: str, version: str, part: str) -> None:
    excluded, _ = check(moe_backend=backend, version=version)
    assert part in excluded


@pytest.mark.parametrize(
    ("family", "backend"),
    [
        ("nvfp4", "triton"), ("nvfp4", "deep_gemm"), ("mxfp4", "cutlass"), ("fp8-block", "cutlass"),
        ("mxfp8", "cutlass"), ("bf16", "cutlass"), ("bf16", "deep_gemm"), ("int4", "cutlass"), ("fp8", "emulation"),
    ],
)  # fmt: skip
def test_a_format_excludes_the_backends_that_its_table_lacks(family: str, backend: str) -> None:
    assert check(H200, moe_backend=backend, quantization=family)[0]


@pytest.mark.parametrize(
    ("read", "certain"), [("fp8", True), ("fp8-block", True), ("fp8-dynamic", False), (None, False)]
)
def test_fp8_of_a_matrix_is_what_the_checkpoint_says(read: str | None, certain: bool) -> None:
    geometry = replace(catalogue.geometry("Qwen3-30B-A3B"), quantization=read)
    cell = Cell(engine="vllm", model="m", moe_backend="cutlass", quantization="fp8")
    found = check_cell(cell, geometry, H200, "0.24.0")
    assert any("CUTLASS experts are disabled" in text for text in found.excluded) == certain
    # Told by nobody, compressed-tensors is possible: the cell runs, with a warning.
    assert any("CUTLASS experts are disabled" in text for text in found.warnings) == (read is None)


@pytest.mark.parametrize("told", ["fp8", None])
@pytest.mark.parametrize(("name", "warned"), [("FP8-dynamic", False), ("FP8", True)])
def test_a_model_s_name_does_not_say_which_fp8_it_is(told: str | None, name: str, warned: bool) -> None:
    """Red Hat's FP8-dynamic is compressed-tensors, Qwen's FP8 has blocks, NVIDIA's is ModelOpt's."""
    found = check(H200, f"x/Qwen3-30B-A3B-{name}", "0.24.0", moe_backend="cutlass", quantization=told)
    assert found[0] == ""
    assert ("CUTLASS experts are disabled" in found[1]) == warned


def test_nvfp4_of_a_matrix_is_weight_only_where_the_checkpoint_says_so() -> None:
    geometry = replace(catalogue.geometry("Qwen3-30B-A3B"), quantization="nvfp4-w4a16")
    cell = Cell(engine="vllm", model="m", moe_backend="flashinfer_cutlass", quantization="nvfp4")
    found = check_cell(cell, geometry, SM120, "0.33.0")
    assert any("the checkpoint is weight-only" in text for text in found.excluded)


def test_an_old_version_whose_table_was_not_read_only_warns() -> None:
    excluded, warned = check(moe_backend="triton", quantization="nvfp4", version="0.19.1")
    assert excluded == ""
    assert "not supported for nvfp4" in warned


def test_marlin_on_unquantized_experts_was_an_error_and_became_auto() -> None:
    assert check(moe_backend="marlin", quantization="bf16", version="0.24.0")[0]
    excluded, warned = check(moe_backend="marlin", quantization="bf16", version="0.33.0")
    assert (excluded, "treated as auto" in warned) == ("", True)


@pytest.mark.parametrize(
    ("hardware", "family", "backend", "out"),
    [
        (SM120, "nvfp4", "flashinfer_trtllm", True), (B200, "nvfp4", "flashinfer_trtllm", False),
        (SM120, "nvfp4", "flashinfer_cutedsl", True), (H200, "nvfp4", "cutlass", True),
        (H200, "nvfp4", "flashinfer_cutlass", True), (SM120, "nvfp4", "flashinfer_cutlass", False),
        (B200, "nvfp4", "flashinfer_b12x", True), (SM120, "nvfp4", "flashinfer_b12x", False),
        (SM120, "fp8-dynamic", "cutlass", True), (H200, "fp8-dynamic", "cutlass", False), (H200, "fp8", "aiter", True),
    ],
)  # fmt: skip
def test_the_gpu_generation_decides(hardware: Hardware, family: str, backend: str, out: bool) -> None:
    excluded, _ = check(hardware, moe_backend=backend, quantization=family)
    assert bool(excluded) == out


def test_sm_12_1_counts_as_the_12_0_family() -> None:
    spark = Hardware(gpu="GB10", count=1, memory_gib=119.0, sm="12.1")
    assert check(spark, moe_backend="flashinfer_trtllm", quantization="nvfp4")[0]
    assert check(spark, moe_backend="flashinfer_b12x", quantization="nvfp4")[0] == ""


def test_cutlass_on_sm120_before_the_fix_warns_and_runs() -> None:
    excluded, warned = check(moe_backend="cutlass", quantization="nvfp4", version="0.17.1")
    assert excluded == ""
    assert "cutlass #3096" in warned


@pytest.mark.parametrize("backend", ["triton", "flashinfer_cutlass", "marlin"])
def test_an_engine_on_cpus_answers_for_itself(backend: str) -> None:
    assert check(CPU, moe_backend=backend, quantization="bf16", version="0.32.0")[0] == ""
    assert check(CPU, parallelism=Parallelism(tp=2))[0] == ""


def test_weight_only_nvfp4_excludes_kernels_that_want_quantized_activations() -> None:
    assert check(moe_backend="flashinfer_cutlass", quantization="nvfp4-w4a16")[0]
    assert check(moe_backend="marlin", quantization="nvfp4-w4a16")[0] == ""


def test_b12x_takes_no_expert_parallelism_and_no_cuda_12() -> None:
    assert "expert parallelism" in check(moe_backend="flashinfer_b12x", parallelism=Parallelism(tp=4, ep=4))[0]
    assert "CUDA 13" in check(moe_backend="flashinfer_b12x", image="vllm/vllm-openai:v0.33.0-cu129")[0]


def test_cutlass_spreads_experts_over_one_exchange_only() -> None:
    spread = {"moe_backend": "cutlass", "quantization": "nvfp4", "parallelism": Parallelism(tp=2, dp=2, ep=4)}
    assert check(**spread) == ("", "")
    assert "allgather" in check(**spread, extra_args=("--all2all-backend", "deepep_high_throughput"))[0]
    # Batched experts have a class of their own: nobody refuses it for certain.
    excluded, warned = check(**spread, extra_args=("--all2all-backend", "deepep_low_latency"))
    assert excluded == "" and "allgather" in warned


def test_an_exchange_that_nothing_uses_excludes_nothing() -> None:
    """0.32, fused_moe/config.py: without data parallelism no all-to-all backend is used."""
    extra = ("--all2all-backend", "deepep_high_throughput")
    assert check(
        moe_backend="cutlass", quantization="nvfp4", parallelism=Parallelism(tp=4, ep=4), extra_args=extra
    ) == (
        "",
        "",
    )


@pytest.mark.parametrize(
    "unread",
    [
        {"version": "0.34.0"},
        {"version": None, "image": "vllm/vllm-openai:nightly"},
        {"version": None, "python": "/opt/venv/bin/python"},
        {"version": None, "engine_version": "latest"},
    ],
)
@pytest.mark.parametrize(
    "asked",
    [
        {"moe_backend": "brand_new"},
        {"moe_backend": "triton", "quantization": "nvfp4"},
        {"moe_backend": "flashinfer_trtllm", "quantization": "nvfp4"},
        {"moe_backend": "cutlass", "quantization": "fp8"},
        {"moe_backend": "flashinfer_b12x", "parallelism": Parallelism(tp=4, ep=4)},
    ],
)
def test_a_version_that_nobody_read_excludes_no_backend(unread: dict[str, object], asked: dict[str, object]) -> None:
    assert check(**asked)[0]
    excluded, warned = check(**asked, **unread)
    assert excluded == "" and warned


def test_a_newer_sglang_excludes_no_backend_either() -> None:
    excluded, warned = check(engine="sglang", version="0.6.0", moe_backend="brand_new")
    assert excluded == "" and "--moe-runner-backend" in warned


def test_a_value_may_have_come_in_the_version_between_two_that_were_read() -> None:
    excluded, warned = check(moe_backend="flashinfer_b12x", version="0.21.0")
    assert excluded == "" and "it came with 0.22" in warned


def test_no_gpu_rule_is_certain_for_a_version_whose_kernels_were_not_read() -> None:
    excluded, warned = check(moe_backend="cutlass", quantization="fp8-dynamic", version="0.20.2")
    assert excluded == "" and "no kernel above SM 10.x" in warned
    assert "no kernel above SM 10.x" in check(moe_backend="cutlass", quantization="fp8-dynamic")[0]


@pytest.mark.parametrize("how", [{"quantization_flag": "fp8"}, {"extra_args": ("--quantization", "fp8")}])
@pytest.mark.parametrize("told", ["bf16", None])
def test_weights_quantized_while_loading_are_no_bf16_experts(how: dict[str, object], told: str | None) -> None:
    """Seen on an H200 with 0.24: bf16 weights, --quantization fp8, --moe-backend marlin is healthy."""
    assert check(H200, moe_backend="marlin", quantization=told, version="0.24.0", **how)[0] == ""
    assert check(H200, moe_backend="marlin", quantization="bf16", version="0.24.0")[0]


@pytest.mark.parametrize("producer", ["modelopt", "compressed-tensors"])
def test_a_tool_that_writes_many_formats_is_no_format(producer: str) -> None:
    assert check(moe_backend="flashinfer_cutedsl", quantization=producer, hardware=B200)[0] == ""
    assert check(moe_backend="marlin", quantization=producer)[0] == ""


def test_sglang_replicas_do_not_share_the_width_of_an_expert() -> None:
    wide = Parallelism(tp=4, dp=5)
    big = Hardware(count=64, sm="9.0")
    assert "expert width 768" in check(big, "Qwen3-30B-A3B", parallelism=wide)[0]
    assert check(big, "Qwen3-30B-A3B", version="0.5.23", engine="sglang", parallelism=wide)[0] == ""


def test_redundant_experts_make_up_what_does_not_divide() -> None:
    geometry = replace(catalogue.geometry("Qwen3-30B-A3B"), heads=40, kv_heads=5, head_dim=128)
    cell = Cell(engine="sglang", model="m", parallelism=Parallelism(tp=5, ep=5))
    assert any("128 experts" in text for text in check_cell(cell, geometry, H200, "0.5.23").excluded)
    copied = replace(cell, extra_args=("--ep-num-redundant-experts", "2"))
    assert check_cell(copied, geometry, H200, "0.5.23").excluded == ()


def test_attention_that_shares_its_ranks_is_told_how_to_say_so() -> None:
    asked = {"engine": "sglang", "version": "0.5.23", "parallelism": Parallelism(tp=8, dp=8)}
    assert "give it as --dp-size in extra_args" in check(H200, extra_args=("--enable-dp-attention",), **asked)[0]
    assert "--dp-size" not in check(H200, **asked)[0]


def test_the_author_may_force_a_backend_with_extra_arguments() -> None:
    assert check(moe_backend="triton", quantization="nvfp4", extra_args=("--moe-backend=triton",))[0] == ""


def test_more_ranks_than_gpus_are_excluded() -> None:
    assert "needs 8 GPUs" in check(parallelism=Parallelism(tp=4, pp=2))[0]
    assert check(Hardware(), parallelism=Parallelism(tp=8))[0] == ""


def test_heads_experts_and_layers_must_divide() -> None:
    assert "64 attention heads" in check(H200, "Qwen3-235B-A22B", parallelism=Parallelism(tp=3))[0]
    assert "expert width 768" in check(H200, "Qwen3-30B-A3B", parallelism=Parallelism(tp=5))[0]
    assert "only 36 layers" in check(Hardware(count=64, sm="9.0"), "Qwen2.5-3B", parallelism=Parallelism(pp=40))[0]
    assert "no experts" in check(H200, "Qwen3-32B", parallelism=Parallelism(tp=2, ep=2))[0]


def test_kv_heads_may_be_replicated_but_not_split_unevenly() -> None:
    assert check(H200, "Qwen3-30B-A3B", parallelism=Parallelism(tp=8))[0] == ""
    assert "KV heads" in check(Hardware(count=8, sm="9.0"), "GLM-4.5", parallelism=Parallelism(tp=6))[0]


def test_a_slice_narrower_than_a_block_warns() -> None:
    _, warned = check(
        Hardware(count=8, sm="9.0"), "Qwen3-30B-A3B", quantization="fp8-block", parallelism=Parallelism(tp=4)
    )
    assert "192 wide" in warned


def test_weights_that_exceed_the_card_are_excluded_with_the_way_out() -> None:
    excluded, _ = check(model="nvidia/Qwen3.5-397B-A17B-NVFP4", parallelism=Parallelism(tp=2))
    assert "110.5 GiB per rank on 2 GPUs" in excluded
    assert "tp=4 would hold them" in excluded
    assert check(model="nvidia/Qwen3.5-397B-A17B-NVFP4", parallelism=Parallelism(tp=4), max_model_len=8192)[0] == ""


BIG = "Qwen/Qwen3-235B-A22B"
FOUR = Parallelism(tp=4)


def test_a_size_that_nobody_knows_warns_and_the_cell_runs() -> None:
    assert "weights need 109" in check(model=BIG, parallelism=FOUR)[0]
    for doubt in (
        {"quantization": "quark"},
        {"quantization_flag": "bitsandbytes"},
        {"extra_args": ("--quantization=fp8",)},
        {"extra_args": ("--cpu-offload-gb", "40")},
    ):
        excluded, warned = check(model=BIG, parallelism=FOUR, **doubt)
        assert excluded == "", doubt
        assert "weights need" in warned and ", unless " in warned, doubt


@pytest.mark.parametrize("name", ["AWQ", "GPTQ-Int4", "W4A16", "Instruct-2507-AWQ", "4bit", "GPTQ-Int8", "w8a8"])
def test_a_quantized_variant_is_not_left_out_for_the_size_of_the_original(name: str) -> None:
    assert check(model=f"x/Qwen3-235B-A22B-{name}", parallelism=FOUR, max_model_len=8192)[0] == ""


def test_the_files_on_this_disk_say_how_large_the_weights_are() -> None:
    cell = Cell(engine="vllm", model="m", parallelism=FOUR, max_model_len=8192)
    shape = catalogue.geometry(BIG)
    assert check_cell(cell, replace(shape, stored_bytes=130_000_000_000), SM120, "0.33.0").excluded == ()
    (text,) = check_cell(cell, replace(shape, stored_bytes=500_000_000_000), SM120, "0.33.0").excluded
    assert "500 GB in bf16, the files on this disk" in text


def test_variables_that_a_version_ignores_are_pointed_out() -> None:
    _, warned = check(env=(("VLLM_USE_FLASHINFER_MOE_FP4", "1"),), version="0.24.0")
    assert "ignored since vLLM 0.24: use --moe-backend" in warned
    assert check(env=(("VLLM_USE_FLASHINFER_MOE_FP4", "1"),), version="0.20.2")[1] == ""


def test_an_inherited_draft_backend_warns_and_an_own_one_does_not() -> None:
    inherits = Speculative(method="mtp", tokens=2)
    own = Speculative(method="mtp", tokens=2, moe_backend="auto")
    assert "inherits" in check(moe_backend="cutlass", quantization="nvfp4", speculative=inherits)[1]
    assert check(moe_backend="cutlass", quantization="nvfp4", speculative=own)[1] == ""
    wrong = Speculative(method="mtp", tokens=2, moe_backend="nonsense")
    assert "(draft)" in check(speculative=wrong)[0]


def test_mtp_on_a_model_without_prediction_layers_warns() -> None:
    spec = Speculative(method="mtp", tokens=1)
    assert "no prediction layers" in check(H200, "Qwen3-30B-A3B", speculative=spec)[1]
    assert "no prediction layers" not in check(H200, "GLM-4.5", speculative=spec)[1]


def test_speculation_over_pipeline_stages_warns() -> None:
    spec = Speculative(method="ngram", tokens=3)
    assert "pp=2" in check(parallelism=Parallelism(pp=2), speculative=spec)[1]
    assert check(parallelism=Parallelism(pp=2), speculative=spec, version="0.9.2")[0]


def test_a_linear_backend_is_checked_where_the_values_are_known() -> None:
    assert check(linear_backend="nonsense", version="0.32.0")[0]
    excluded, warned = check(linear_backend="nonsense", version="0.33.0")
    assert (excluded, bool(warned)) == ("", True)
    assert check(linear_backend="flashinfer_cutlass", version="0.32.0") == ("", "")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {"moe_backend": "cutlass", "quantization": "nvfp4", "quantization_flag": "modelopt_fp4"},
            "flashinfer_cutlass",
        ),
        ({"moe_backend": "nonsense"}, "--moe-runner-backend"),
        ({"moe_backend": "flashinfer_trtllm", "quantization": "nvfp4"}, "SM 10.x"),
        ({"parallelism": Parallelism(tp=4, ep=2)}, "must equal tp"),
        ({"linear_backend": "nonsense", "quantization": "nvfp4"}, "--fp4-gemm-backend"),
        ({"parallelism": Parallelism(pp=2), "speculative": Speculative(method="ngram", tokens=2)}, "EAGLE"),
        ({"moe_backend": "cutlass", "quantization": "fp8-block", "parallelism": Parallelism(tp=2, ep=2)}, "ep = 1"),
    ],
)
def test_sglang_has_rules_of_its_own(changes: dict[str, object], part: str) -> None:
    assert part in check(engine="sglang", version="0.5.23", **changes)[0]
    excluded, warned = check(engine="sglang", version="0.5.8", **changes)
    assert excluded == ""
    assert part in warned


@pytest.mark.parametrize(
    "changes", [{"quantization": "nvfp4"}, {"quantization": "fp8", "parallelism": Parallelism(tp=2, ep=2)}]
)
def test_sglang_refuses_cutlass_for_some_writers_of_a_format_only(changes: dict[str, object]) -> None:
    excluded, warned = check(engine="sglang", version="0.5.23", moe_backend="cutlass", **changes)
    assert excluded == "" and "cutlass" in warned


def test_a_half_told_backend_is_answered_with_those_that_this_gpu_has() -> None:
    assert check(moe_backend="flashinfer")[0].count("flashinfer_trtllm") == 0
    assert "flashinfer_b12x" in check(moe_backend="flashinfer")[0]
    assert "flashinfer_trtllm or flashinfer_cutedsl" in check(B200, moe_backend="flashinfer")[0]


def test_sglang_warns_where_auto_ends_at_the_wrong_kernel() -> None:
    _, warned = check(engine="sglang", version="0.5.23", quantization="nvfp4", quantization_flag="modelopt_mixed")
    assert "flashinfer_trtllm" in warned
    spec = Speculative(method="mtp", tokens=2)
    _, staged = check(engine="sglang", version="0.5.23", parallelism=Parallelism(pp=2), speculative=spec)
    assert "--disable-overlap-schedule" in staged


def test_other_engines_are_held_to_the_number_of_gpus_only() -> None:
    assert check(engine="command", model="Qwen3-235B-A22B", parallelism=Parallelism(tp=3), quantization="bf16") == (
        "",
        "",
    )
    assert "needs 8" in check(engine="command", parallelism=Parallelism(tp=8))[0]
    many = Hardware(count=64, sm="9.0")
    for split in (Parallelism(tp=5), Parallelism(pp=50)):
        assert check(many, engine="command", model="Qwen3-30B-A3B", parallelism=split) == ("", "")
