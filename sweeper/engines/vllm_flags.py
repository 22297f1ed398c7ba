"""How vLLM takes a kernel choice, by version: a flag, environment variables, or not at all.

From the released wheels 0.9.2 to 0.33.0 (vllm/config/kernel.py, vllm/engine/arg_utils.py, vllm/envs.py). A first or
last version is one of the wheels compared, so an edge may be off by the releases between two of them.
"""

from __future__ import annotations

from sweeper.core.versions import Version
from sweeper.core.vllm_values import normal as normal

MOE_FLAG_SINCE: Version = (0, 17)
LINEAR_FLAG_SINCE: Version = (0, 22)
ATTENTION_FLAG_SINCE: Version = (0, 15)
DRAFT_MOE_SINCE: Version = (0, 19, 1)
MTP_NAME_SINCE: Version = (0, 11)

_FLASHINFER_MODE = {
    "flashinfer_cutlass": "throughput",
    "flashinfer_trtllm": "latency",
    "flashinfer_cutedsl": "masked_gemm",
}

Since = tuple[Version, dict[str, str]]

_MOE_ENV: dict[tuple[str, str], Since] = {
    **{
        ("nvfp4", name): ((0, 10, 2), {"VLLM_USE_FLASHINFER_MOE_FP4": "1", "VLLM_FLASHINFER_MOE_BACKEND": mode})
        for name, mode in _FLASHINFER_MODE.items()
    },
    ("nvfp4", "cutlass"): ((0, 10, 2), {"VLLM_USE_FLASHINFER_MOE_FP4": "0"}),
    ("nvfp4", "marlin"): ((0, 15), {"VLLM_TEST_FORCE_FP8_MARLIN": "1"}),
    ("nvfp4", "emulation"): ((0, 9, 2), {"VLLM_USE_NVFP4_CT_EMULATIONS": "1"}),
    **{
        ("fp8", name): ((0, 10, 2), {"VLLM_USE_FLASHINFER_MOE_FP8": "1", "VLLM_FLASHINFER_MOE_BACKEND": mode})
        for name, mode in _FLASHINFER_MODE.items()
        if name != "flashinfer_cutedsl"
    },
    ("fp8", "deep_gemm"): ((0, 9, 2), {"VLLM_USE_DEEP_GEMM": "1"}),
    ("fp8", "marlin"): ((0, 9, 2), {"VLLM_TEST_FORCE_FP8_MARLIN": "1"}),
    ("fp8", "triton"): ((0, 9, 2), {"VLLM_USE_FLASHINFER_MOE_FP8": "0", "VLLM_USE_DEEP_GEMM": "0"}),
    ("bf16", "flashinfer_cutlass"): (
        (0, 11),
        {"VLLM_USE_FLASHINFER_MOE_FP16": "1", "VLLM_FLASHINFER_MOE_BACKEND": "throughput"},
    ),
    ("bf16", "triton"): ((0, 9, 2), {}),
    ("mxfp4", "marlin"): ((0, 10, 2), {"VLLM_MXFP4_USE_MARLIN": "1"}),
    ("mxfp4", "flashinfer_trtllm"): ((0, 10, 2), {"VLLM_USE_FLASHINFER_MOE_MXFP4_BF16": "1"}),
    ("mxfp4", "flashinfer_cutlass"): ((0, 11), {"VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8_CUTLASS": "1"}),
}

_LINEAR_ENV = {
    "cutlass": "cutlass",
    "flashinfer_cutlass": "flashinfer-cutlass",
    "flashinfer_trtllm": "flashinfer-trtllm",
    "flashinfer_cudnn": "flashinfer-cudnn",
}


def moe_environment(family: str, value: str, version: Version) -> dict[str, str] | None:
    """Variables that select a MoE backend before the flag existed; None where none did."""
    found = _MOE_ENV.get((family, value))
    return found[1] if found and version >= found[0] else None


def linear_environment(family: str, value: str, version: Version) -> dict[str, str] | None:
    """The variable that selected the FP4 linear kernel from 0.11.2 until --linear-backend; None where none did."""
    written = _LINEAR_ENV.get(value)
    if family != "nvfp4" or version < (0, 11, 2) or written is None:
        return None
    return {"VLLM_NVFP4_GEMM_BACKEND": written}
