"""Facts from vLLM's log lines, by version. Excerpts are written for these tests around the engines' messages."""

from __future__ import annotations

import pytest

from sweeper.engines.facts import FactReader, read_facts

CONFIG = (
    "Initializing a V1 LLM engine (v0.33.0) with config: model='m', speculative_config=SpeculativeConfig("
    "method='mtp', model='m', num_spec_tokens=2), dtype=torch.bfloat16, max_seq_len=4096, tensor_parallel_size=4, "
    "pipeline_parallel_size=1, data_parallel_size=1, quantization=modelopt_fp4, enforce_eager=False, "
    "kernel_config=KernelConfig(moe_backend='auto')"
)


def test_the_config_line_gives_version_sizes_format_and_method() -> None:
    facts = read_facts([f"(EngineCore pid=7) INFO 11-20 10:00:05 [core.py:114] {CONFIG}"])
    assert (facts.engine, facts.engine_version) == ("vllm", "0.33.0")
    assert (facts.tp, facts.pp, facts.dp) == (4, 1, 1)
    assert (facts.quantization, facts.dtype, facts.max_model_len) == ("modelopt_fp4", "bfloat16", 4096)
    assert facts.speculative_method == "mtp"
    assert facts.evidence["tp"] == 1


@pytest.mark.parametrize(
    ("line", "raw", "name"),
    [
        ("Using 'FLASHINFER_CUTLASS' NvFp4 MoE backend out of potential backends: ['MARLIN'].", "FLASHINFER_CUTLASS",
         "flashinfer_cutlass"),
        ("Using 'VLLM_CUTLASS' NvFp4 MoE backend out of potential backends: [].", "VLLM_CUTLASS", "cutlass"),
        ("Using DEEPGEMM Fp8 MoE backend out of potential backends: [].", "DEEPGEMM", "deep_gemm"),
        ("Using FlashInfer CUTLASS Unquantized MoE backend out of potential backends: [].", "FlashInfer CUTLASS",
         "flashinfer_cutlass"),
        ("Using CPU Unquantized MoE backend out of potential backends: ['CPU'].", "CPU", "cpu"),
        ("Using ROCm AITER Unquantized MoE backend out of potential backends: [].", "ROCm AITER", "aiter"),
        ("Using 'DEEPGEMM_MXFP4' Mxfp4 MoE backend.", "DEEPGEMM_MXFP4", "deep_gemm"),
        ("Using 'FLASHINFER_TRTLLM_MXFP4_BF16' Mxfp4 MoE backend.", "FLASHINFER_TRTLLM_MXFP4_BF16",
         "flashinfer_trtllm"),
        ("Using 'MARLIN' MxFp8 MoE backend (user-requested).", "MARLIN", "marlin"),
        ("Using 'MARLIN' WNA16 MoE backend.", "MARLIN", "marlin"),
        ("Using FlashInfer CUTLASS backend for NvFp4 MoE", "FlashInfer CUTLASS", "flashinfer_cutlass"),
        ("Using Triton backend for FP8 MoE", "Triton", "triton"),
        ("Using Marlin for ModelOptNvFp4FusedMoE.", "Marlin", "marlin"),
        ("Using FlashInfer FP8 MoE CUTLASS backend for SM90/SM100", "FLASHINFER_CUTLASS", "flashinfer_cutlass"),
    ],
)  # fmt: skip
def test_every_generation_of_the_backend_line_is_read(line: str, raw: str, name: str) -> None:
    facts = read_facts([line])
    assert (facts.moe_backend_raw, facts.moe_backend) == (raw, name)


@pytest.mark.parametrize(
    "line",
    [
        "WARNING 11-20 10:00:05 Using 'MARLIN' NvFp4 MoE backend out of potential backends: [].",
        "(Worker_TP0_EP0 pid=7) INFO 11-20 10:00:05 [nvfp4.py:270] Using 'MARLIN' NvFp4 MoE backend out of [].",
        "vllm-1  | \x1b[32mINFO\x1b[0m 11-20 10:00:05 [nvfp4.py:270] Using 'MARLIN' NvFp4 MoE backend out of [].",
    ],
)
def test_prefixes_do_not_hide_the_backend(line: str) -> None:
    reader = FactReader()
    from sweeper.engines.lines import clean

    reader.line(1, clean(line).text)
    assert reader.result().moe_backend == "marlin"


@pytest.mark.parametrize(
    "line",
    [
        "NvFp4 MoE backend 'VLLM_CUTLASS' does not support the deployment configuration since kernel does not.",
        '    logger.info("Using %s NvFp4 MoE backend out of potential backends")',
        "ValueError: moe_backend='triton' is not supported for NvFP4 MoE. Expected one of ['marlin'].",
    ],
)
def test_a_refused_backend_is_not_a_fact(line: str) -> None:
    assert read_facts([line]).moe_backend is None


def test_a_second_backend_line_belongs_to_the_draft() -> None:
    facts = read_facts(
        [
            CONFIG,
            "Using 'MARLIN' NvFp4 MoE backend out of potential backends: [].",
            "Using TRITON Unquantized MoE backend out of potential backends: [].",
            "Using FLASHINFER attention backend out of potential backends: ['FLASHINFER'].",
            "Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN'].",
        ]
    )
    assert (facts.moe_backend, facts.draft_moe_backend) == ("marlin", "triton")
    assert (facts.attention_backend, facts.draft_attention_backend) == ("FLASHINFER", "FLASH_ATTN")


def test_without_a_draft_model_a_second_backend_line_says_nothing_about_a_draft() -> None:
    facts = read_facts(["Using 'MARLIN' NvFp4 MoE backend.", "Using TRITON Unquantized MoE backend."])
    assert facts.draft_moe_backend is None


def test_deepgemm_selected_is_not_deepgemm_ran() -> None:
    selected = "Using DEEPGEMM Fp8 MoE backend out of potential backends: []."
    assert read_facts([selected]).moe_backend_ran is None
    fell = read_facts([selected, "DeepGemm disabled for N <= 512. M: 1, N: 256, K: 2048. This means that Triton runs."])
    assert fell.moe_backend_ran is False
    assert any("Triton ran" in sentence for sentence in fell.fallbacks)
    tuned = read_facts(
        [selected, "Using default MoE config. Performance might be sub-optimal! Config file not found at /x"]
    )
    assert tuned.moe_backend_ran is False


def test_triton_is_proven_by_its_own_tables() -> None:
    lines = [
        "Using TRITON Fp8 MoE backend out of potential backends: [].",
        "Using configuration from /a.json for MoE layer.",
    ]
    assert read_facts(lines).moe_backend_ran is True


MARLIN = "Using 'MARLIN' NvFp4 MoE backend out of potential backends: ['MARLIN', 'EMULATION']."
EMULATED = "Using Nvfp4QuantizationEmulationTritonExperts MOE backend. This will dequantize weights on the fly."
COMPILED = "Triton kernel JIT compilation during inference: fused_moe_kernel. This causes a latency spike."
TABLE = "Using default MoE config. Performance might be sub-optimal! Config file not found at /x"
TUNED = "[Autotuner]: Skipped 8 unsupported tactic(s) for {} (enable debug logs to see details)"


@pytest.mark.parametrize(
    ("lines", "ran"),
    [
        ([MARLIN], None),
        ([MARLIN, TABLE], None),
        ([MARLIN, COMPILED], False),
        ([MARLIN, "Using TRITON Unquantized MoE backend.", COMPILED], None),
        ([MARLIN.replace("'MARLIN' ", "'EMULATION' "), EMULATED], None),
        ([MARLIN.replace("'MARLIN' ", "'EMULATION' "), EMULATED, TABLE], True),
        (["Using VLLM_CUTLASS Fp8 MoE backend."], None),
        (["Using VLLM_CUTLASS Fp8 MoE backend.", COMPILED], False),
        (["Using 'FLASHINFER_CUTLASS' NvFp4 MoE backend."], None),
        (["Using 'FLASHINFER_CUTLASS' NvFp4 MoE backend.", TUNED.format("trtllm::fused_moe::gemm1")], True),
        (
            ["Using 'FLASHINFER_TRTLLM' NvFp4 MoE backend.", TUNED.format("flashinfer::trtllm_fp4_block_moe")],
            True,
        ),
        (["Using 'FLASHINFER_TRTLLM' NvFp4 MoE backend.", TUNED.format("trtllm::fused_moe::gemm1")], None),
        ([MARLIN, TUNED.format("fp4_gemm")], None),
    ],
)
def test_selected_is_told_from_ran_by_lines_that_only_a_call_prints(lines: list[str], ran: bool | None) -> None:
    assert read_facts(lines).moe_backend_ran is ran


def test_ranks_give_the_sizes_where_no_config_line_does() -> None:
    lines = [
        f"rank {n} in world size 4 is assigned as DP rank 0, PP rank {n // 2}, PCP rank 0, TP rank {n % 2}, EP rank {n}"
        for n in range(4)
    ]
    facts = read_facts(lines)
    assert (facts.tp, facts.pp) == (2, 2)


def test_experts_are_spread_only_where_the_log_says_so() -> None:
    args = "non-default args: {'model': 'm', 'tensor_parallel_size': 4}"
    assert read_facts([args, CONFIG]).ep == 1
    spread = "[EP Rank 0/4] Expert parallelism is enabled. Expert placement strategy: linear."
    assert read_facts([args.replace("4}", "4, 'enable_expert_parallel': True}"), CONFIG, spread]).ep == 4
    assert read_facts([CONFIG]).ep is None


def test_memory_is_that_of_the_fullest_rank() -> None:
    facts = read_facts(
        [
            "Loading weights took 12.50 seconds",
            "Loading weights took 14.25 seconds",
            "Model loading took 55.21 GiB memory and 20.123456 seconds",
            "Model loading took 56.12 GiB memory and 21.0 seconds",
            "Available KV cache memory: 20.50 GiB",
            "Available KV cache memory: 19.75 GiB",
            "GPU KV cache size: 1,234,567 tokens, Maximum concurrency for 4,096 tokens per request: 301.41x",
        ]
    )
    assert (facts.weights_load_s, facts.weights_gib) == (14.25, 56.12)
    assert (facts.kv_cache_gib, facts.kv_cache_tokens) == (19.75, 1234567)


def test_graphs_are_on_when_they_were_captured_and_off_in_eager_mode() -> None:
    on = read_facts([CONFIG, "Graph capturing finished in 23 secs, took 1.50 GiB"])
    assert (on.cuda_graphs, on.graph_capture_s) == (True, 23.0)
    assert read_facts([CONFIG.replace("enforce_eager=False", "enforce_eager=True")]).cuda_graphs is False
    assert read_facts([CONFIG]).cuda_graphs is None


def test_skipped_tactics_are_counted_in_both_forms() -> None:
    new = read_facts(
        [
            "2026-11-20 10:00:05,101 - INFO - autotuner.py:641 - flashinfer.jit: [Autotuner]: Skipped 12 unsupported "
            "tactic(s) for trtllm::fused_moe::gemm1 (enable debug logs to see details)",
            "[Autotuner]: Skipped 8 unsupported tactic(s) for trtllm::fused_moe::gemm2 (enable debug logs)",
            "[Autotuner]: Skipped 8 unsupported tactic(s) for trtllm::fused_moe::gemm2 (enable debug logs)",
        ]
    )
    assert new.autotune_skipped == 20
    old = read_facts(
        ["[Autotuner]: Skipping tactic <moe.Runner> 3, due to failure while profiling: Error Internal"] * 3
    )
    assert old.autotune_skipped == 3
    assert read_facts(["[Autotuner]: Autotuning process ends"]).autotune_skipped == 0
    assert read_facts(["nothing"]).autotune_skipped is None


def test_kernels_compiled_while_serving_are_counted_and_none_seen_is_zero_only_under_the_monitor() -> None:
    watch = "Kernel JIT monitor activated - Triton JIT compilations during inference will be logged as warnings."
    line = (
        "Triton kernel JIT compilation during inference: fused_moe_kernel. This causes a latency spike; extend warmup."
    )
    assert read_facts([watch]).jit_in_run == 0
    assert read_facts([watch, line, line]).jit_in_run == 2
    assert read_facts(["x"]).jit_in_run is None


@pytest.mark.parametrize(
    ("line", "length", "rate"),
    [
        ("SpecDecoding metrics: Mean acceptance length: 2.74, Accepted throughput: 58.73 tokens/s, Drafted throughput: "
         "99.55 tokens/s, Accepted: 643 tokens, Drafted: 1090 tokens, Per-position acceptance rate: 0.9, Avg Draft "
         "acceptance rate: 59.0%", 2.74, 643 / 1090),
        ("SpecDecoding metrics: Draft acceptance rate: 62.5%, Mean acceptance length: 2.25, Accepted: 5 tokens, "
         "Drafted: 8 tokens", 2.25, 0.625),
        ("SpecDecoding metrics: Mean acceptance length: 1.00, Accepted: 0 tokens, Drafted: 100 tokens", 1.0, 0.0),
        ("SpecDecoding metrics: Mean acceptance length: nan, Accepted: 0 tokens, Drafted: 0 tokens", None, None),
    ],
)  # fmt: skip
def test_acceptance_is_the_last_that_the_engine_printed(line: str, length: float | None, rate: float | None) -> None:
    facts = read_facts([line])
    assert facts.acceptance_length == length
    assert facts.acceptance_rate == (None if rate is None else pytest.approx(rate))


def test_periodic_throughput_is_kept_in_order() -> None:
    line = "Engine 000: Avg prompt throughput: 1.0 tokens/s, Avg generation throughput: {} tokens/s, Running: 1 reqs"
    assert read_facts([line.format(50.5), line.format(0.0), line.format(49.0)]).generation_tok_s == (50.5, 0.0, 49.0)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Using FlashInferCutlassNvFp4LinearKernel for NVFP4 GEMM", "flashinfer_cutlass"),
        ("Using MarlinNvFp4LinearKernel for NVFP4 GEMM", "marlin"),
        ("Using FlashInferB12xNvFp4LinearKernel for NVFP4 GEMM", "flashinfer_b12x"),
        ("Selected CutlassFP8ScaledMMLinearKernel for Fp8PerTensorOnlineLinearMethod", "cutlass"),
        ("Selected ChannelWiseTorchFP8ScaledMMLinearKernel for CompressedTensorsW8A8Fp8", "torch"),
        ("Selected FlashInferFp8DeepGEMMDynamicBlockScaledKernel for Fp8LinearMethod", "flashinfer_deep_gemm"),
        ("Selected FlashInferFP8ScaledMMLinearKernel for Fp8LinearMethod", "flashinfer_cutlass"),
        ("Selected DeepGemmFp8BlockScaledMMKernel for Fp8LinearMethod", "deep_gemm"),
        ("Selected XPUW8A16FP8LinearKernel for Fp8LinearMethod", "xpu_woq"),
        ("Selected SomethingNewLinearKernel for X", "somethingnewlinearkernel"),
    ],
)
def test_linear_kernels_are_named_like_the_flag(line: str, name: str) -> None:
    assert read_facts([line]).linear_backend == name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Using AttentionBackendEnum.TRITON_ATTN backend.", "TRITON_ATTN"),
        ("Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN', 'FLASHINFER'].", "FLASH_ATTN"),
        ("Using Flash Attention backend on V1 engine.", "FLASH_ATTN"),
        ("Using FlashInfer backend on V1 engine.", "FLASHINFER"),
    ],
)
def test_attention_backends_of_all_versions(line: str, name: str) -> None:
    assert read_facts([line]).attention_backend == name


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("No Mxfp4 MoE backend supports activation=mxfp8 for the deployment configuration. Falling back to 'MARLIN' "
         "with BF16 activations.", "MARLIN"),
        ("NVFP4 linear falling back to the slow and unoptimized emulation backend as no other runs", "emulation"),
        ("--linear-backend=marlin has no kernel for this linear layer type; another is used", "marlin"),
        ("FlashInfer kernels are disabled: flashinfer-cubin is not installed and nvcc is missing.", "flashinfer-cubin"),
        ("Custom allreduce is disabled because it's not supported on more than two PCIe-only GPUs. To silence", "NCCL"),
        ("Unknown vLLM environment variable detected: VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_USE_FLASHINFER_MOE_FP4"),
        ("Model Runner V2 does not yet support ngram; using the V1 model runner instead.", "V1"),
    ],
)  # fmt: skip
def test_replacements_are_told_in_a_sentence(line: str, part: str) -> None:
    assert part in " ".join(read_facts([line]).fallbacks)


def test_the_false_fp4_warning_is_no_fallback() -> None:
    line = (
        "Your GPU does not have native support for FP4 computation but FP4 quantization is being used. Weight-only FP4 "
        "compression will be used leveraging the Marlin kernel."
    )
    assert read_facts([line]).fallbacks == ()


def test_boot_phases_come_from_stamps_and_from_the_text() -> None:
    def at(second: int, text: str) -> str:
        return f"INFO 11-20 23:59:{second:02d} [a.py:1] {text}"

    facts = read_facts(
        [
            at(10, "non-default args: {'model': 'm'}"),
            at(25, CONFIG),
            at(40, "Model loading took 55.2 GiB memory and 14.0 seconds"),
            at(50, "GPU KV cache size: 1,000 tokens"),
            at(58, "init engine (profile, create kv cache, warmup model) took 18.00 s"),
            "INFO 11-21 00:00:01 [a.py:1] Starting vLLM server on http://127.0.0.1:8000",
            "INFO:     Application startup complete.",
        ]
    )
    phases = {phase.name: phase.seconds for phase in facts.boot}
    assert phases["read config, start processes"] == 15
    assert phases["start workers, load model"] == 15
    assert phases["total"] == 51
    assert phases["profile, KV cache, warm-up"] == 18.0
    assert facts.ready


def test_stamps_given_by_the_caller_are_used() -> None:
    reader = FactReader()
    reader.line(1, "non-default args: {'model': 'm'}", stamp_s=100.0)
    reader.line(2, "Starting vLLM API server 0 on http://0.0.0.0:8000", stamp_s=130.5)
    assert {phase.name: phase.seconds for phase in reader.result().boot}["total"] == 30.5


def test_the_banner_gives_the_version() -> None:
    assert read_facts(["  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.24.0"]).engine_version == "0.24.0"
    assert read_facts(["INFO 06-04 12:00:00 [api_server.py:1] vLLM API server version 0.9.2"]).engine_version == "0.9.2"


def test_an_empty_log_proves_nothing() -> None:
    facts = read_facts([])
    assert facts.engine is None
    assert facts.ready is False
    assert facts.evidence == {}


def test_every_fact_is_found_by_its_literals_alone() -> None:
    reader = FactReader()
    lines = ["x", CONFIG, "Using 'MARLIN' NvFp4 MoE backend out of potential backends: [].", "y"]
    for number, line in enumerate(lines, 1):
        if any(literal in line for literal in FactReader.LITERALS):
            reader.line(number, line)
    assert reader.result() == read_facts(lines)
