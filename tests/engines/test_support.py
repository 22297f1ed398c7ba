"""What an engine's log rules out. Lines as vLLM 0.24.0 (H200) and 0.32.0 (CPU) print them."""

from __future__ import annotations

import pytest

from sweeper.engines.support import NEVER, refusals, refused

WORKER = "(Worker pid=1208) {} 11-21 08:22:00 [model_executor/.../oracle/unquantized.py:{}] "
CORE = "(EngineCore pid=1390) ERROR 11-21 02:02:45 [core.py:1231] ValueError: "
VERSION = (
    "(EngineCore pid=7) INFO 11-21 08:21:52 [core.py:133] Initializing a V1 LLM engine (v0.{}.0) with config: "
    "model='m', moe_backend='auto'"
)
CPU_AUTO = [
    VERSION.format(32),
    WORKER.format("DEBUG", 367)
    + "Unquantized MoE backend CPU does not support the deployment configuration since kernel "
    "does not support current device cpu.",
    WORKER.format("INFO", 364) + "Using CPU Unquantized MoE backend out of potential backends: ['CPU'].",
    WORKER.format("INFO", 529) + "Using CPUUnquantizedExperts MoE backend",
]
MARLIN_BF16 = [
    VERSION.format(24),
    CORE + "moe_backend='marlin' is not supported for unquantized MoE. Expected one of ['triton', 'flashinfer_trtllm', "
    "'flashinfer_cutlass', 'aiter'].",
]
CUTLASS_NVFP4 = [
    CORE
    + "NvFp4 MoE backend 'VLLM_CUTLASS' does not support the deployment configuration since kernel does not support "
    "current device cuda."
]


def debug(family: str, backend: str, reason: str = "current device cuda", quote: str = "'") -> str:
    """A line of an `auto` launch on an NVIDIA GPU."""
    return (
        f"(EngineCore pid=7) DEBUG 11-21 02:04:49 [nvfp4.py:317] {family} MoE backend {quote}{backend}{quote} does not "
        f"support the deployment configuration since kernel does not support {reason}."
    )


def chosen(family: str, backend: str) -> str:
    return f"(EngineCore pid=7) INFO 11-21 02:04:49 [nvfp4.py:300] Using '{backend}' {family} MoE backend out of ['x']."


def ruled_out(*lines: str) -> set[str]:
    """Backends named by a line of their own."""
    return {refusal.backend for refusal in refusals(lines) if refusal.backend}


def test_on_a_cpu_every_gpu_kernel_is_ruled_out_and_the_cpus_is_not() -> None:
    known = refusals(CPU_AUTO)
    for backend in ("triton", "flashinfer_cutlass", "marlin", "cutlass"):
        line = refused(known, backend)
        assert line is not None
        assert line.line_no == 3
        assert "CPU kernels" in line.reason
    # A kernel class of the CPU backend was turned down, another one of it was taken.
    assert refused(known, "cpu") is None


@pytest.mark.parametrize("lines", [CPU_AUTO, MARLIN_BF16])
@pytest.mark.parametrize("backend", NEVER)
def test_auto_and_humming_are_never_ruled_out(lines: list[str], backend: str) -> None:
    """Humming is for quantised layers; the others take their own backend."""
    assert refused(refusals(lines), backend) is None


@pytest.mark.parametrize("lines", [CPU_AUTO, MARLIN_BF16])
def test_marlin_is_ruled_out_by_a_list_until_0_32_only(lines: list[str]) -> None:
    """From 0.33 on unquantised layers ignore it as they ignore Humming."""
    assert refused(refusals(lines), "marlin") is not None
    assert refused(refusals([VERSION.format(33), *lines[1:]]), "marlin") is None
    assert refused(refusals(lines[1:]), "marlin") is None


def test_a_refused_name_prints_the_names_that_exist_and_rules_out_the_rest() -> None:
    known = refusals(MARLIN_BF16)
    assert refused(known, "marlin") is not None
    assert refused(known, "emulation") is not None
    assert refused(known, "aiter") is None


def test_the_choices_of_the_command_line_rule_out_what_this_release_does_not_know() -> None:
    line = (
        "api_server.py: error: argument --moe-backend: invalid choice: 'b12x' (choose from 'auto', 'triton', 'marlin')"
    )
    known = refusals([line])
    assert refused(known, "b12x") is not None
    assert refused(known, "marlin") is None


def test_the_lines_of_auto_at_debug_level_rule_out_what_it_tried_before_its_choice() -> None:
    lines = [debug("NvFp4", "FLASHINFER_TRTLLM"), debug("NvFp4", "VLLM_CUTLASS"), chosen("NvFp4", "MARLIN")]
    known = refusals(lines)
    assert ruled_out(*lines) == {"flashinfer_trtllm", "cutlass"}
    assert refused(known, "marlin") is None
    # Tried by nobody: only a launch can tell.
    assert refused(known, "emulation") is None


def test_the_line_and_its_reason_are_kept() -> None:
    (refusal,) = refusals(["first", *CUTLASS_NVFP4])
    assert (refusal.backend, refusal.line_no) == ("cutlass", 2)
    assert refusal.reason == "kernel does not support current device cuda"
    assert "EngineCore pid=1390" in refusal.line


def test_names_without_quotes_and_reasons_that_are_missing_are_read() -> None:
    bare = (
        "Unquantized MoE backend FlashInfer CUTLASS does not support the deployment configuration since kernel is gone."
    )
    silent = "Unquantized MoE backend 'ROCm AITER' does not support the deployment configuration."
    assert ruled_out(bare, silent) == {"flashinfer_cutlass", "aiter"}


def test_a_whole_configuration_in_a_reason_is_cut() -> None:
    (refusal,) = refusals(
        [debug("FP8", "DEEPGEMM", "parallel config FusedMoEParallelConfig(" + "tp_size=2, " * 80, "")]
    )
    assert len(refusal.reason) <= 160


def test_the_batched_twin_of_a_kernel_does_not_speak_for_its_name() -> None:
    plain = [
        debug("FP8", "BATCHED_DEEPGEMM", quote=""),
        debug("FP8", "BATCHED_TRITON", "standard activation format", ""),
    ]
    assert ruled_out(*plain) == set()


def test_where_activations_are_batched_the_plain_kernel_does_not_speak_for_its_name() -> None:
    lines = [
        debug("FP8", "DEEPGEMM", "parallel config X", ""),
        debug("FP8", "TRITON", "batched_experts activation format", ""),
        debug("FP8", "BATCHED_DEEPGEMM", "current device cuda", ""),
        chosen("Fp8", "BATCHED_TRITON"),
    ]
    assert ruled_out(*lines) == {"deep_gemm"}
    assert ruled_out(*lines[:2], lines[3]) == set()


def test_one_activation_format_of_an_mxfp4_kernel_does_not_speak_for_its_name() -> None:
    lines = [debug("Mxfp4", "FLASHINFER_TRTLLM_MXFP4_BF16"), debug("Mxfp4", "MARLIN")]
    assert ruled_out(*lines) == {"marlin"}


def test_block_scales_that_only_auto_refines_do_not_speak_for_a_name() -> None:
    refined = (
        "INFO 11-21 02:04:49 [fp8.py:370] FP8 MoE block scales refined from [128, 128] to [64, 64] to fit the shard."
    )
    scheme = debug("FP8", "DEEPGEMM", "quantization scheme AxB", "")
    assert ruled_out(scheme) == {"deep_gemm"}
    assert ruled_out(refined, scheme) == set()
    assert ruled_out(refined, debug("FP8", "DEEPGEMM", "current device cuda", "")) == {"deep_gemm"}


def test_a_kernel_taken_for_some_layers_is_not_ruled_out_by_others() -> None:
    lines = [debug("Unquantized", "FlashInfer CUTLASS", quote=""), chosen("NvFp4", "FLASHINFER_CUTLASS")]
    assert ruled_out(*lines) == set()


def test_an_ordinary_log_rules_out_nothing() -> None:
    assert (
        refusals(["INFO 11-21 02:04:49 [api_server.py:1] Starting vLLM server", "Using 'MARLIN' NvFp4 MoE backend"])
        == ()
    )
