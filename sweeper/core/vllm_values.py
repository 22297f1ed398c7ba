"""Backend names that vLLM's command line and its kernel tables accept, by version and number format.

From the released wheels 0.9.2 to 0.33.0: vllm/config/kernel.py (the flag), and the `map_*_backend` functions of
vllm/model_executor/layers/fused_moe/oracle/{nvfp4,mxfp4,fp8,mxfp8,unquantized,int_wna16}.py (each format's share).
A first or last version is one of the wheels compared, so an edge may be off by the releases between two of them.
"""

from __future__ import annotations

from sweeper.core.versions import Version

_MOE_VALUES_BY_VERSION: tuple[tuple[Version, tuple[str, ...]], ...] = (
    (
        (0, 17),
        (
            "auto",
            "triton",
            "deep_gemm",
            "cutlass",
            "flashinfer_trtllm",
            "flashinfer_cutlass",
            "flashinfer_cutedsl",
            "marlin",
            "aiter",
        ),
    ),
    ((0, 20), ("deep_gemm_mega_moe", "emulation")),
    ((0, 22), ("flashinfer_b12x", "humming", "triton_unfused")),
    ((0, 24), ("flydsl",)),
    ((0, 26), ("hpc",)),
    ((0, 28), ("batched_triton",)),
    (
        (0, 30),
        (
            "b12x",
            "flashinfer_moe_ep_cutedsl",
            "flashinfer_moe_ep_mega_deep_gemm",
            "aiter_mega_moe",
            "aiter_triton_mxfp4_bf16",
            "rdna3",
        ),
    ),
    ((0, 33), ("aiter_triton_mxfp4_mxfp4",)),
)


def moe_values(version: Version) -> tuple[str, ...]:
    """Values that --moe-backend accepts; empty before the flag existed."""
    return tuple(value for since, values in _MOE_VALUES_BY_VERSION if version >= since for value in values)


def first_version_of(value: str) -> Version | None:
    """First version whose flag knows a value; None where no compared version does."""
    return next((since for since, values in _MOE_VALUES_BY_VERSION if value in values), None)


def normal(value: str) -> str:
    """vLLM ignores case and takes - for _."""
    return value.strip().lower().replace("-", "_")


MOE_BY_FORMAT: dict[str, frozenset[str]] = {
    "nvfp4": frozenset(
        "b12x cutlass flashinfer_trtllm flashinfer_cutlass flashinfer_cutedsl flashinfer_moe_ep_cutedsl "
        "flashinfer_b12x marlin humming emulation".split()
    ),
    "mxfp4": frozenset(
        "b12x deep_gemm flashinfer_trtllm flashinfer_cutlass flashinfer_moe_ep_cutedsl "
        "flashinfer_moe_ep_mega_deep_gemm triton triton_unfused humming marlin aiter aiter_triton_mxfp4_bf16 "
        "aiter_triton_mxfp4_mxfp4 emulation".split()
    ),
    "fp8": frozenset("triton deep_gemm cutlass flashinfer_trtllm flashinfer_cutlass marlin humming aiter hpc".split()),
    "mxfp8": frozenset("flashinfer_trtllm deep_gemm marlin aiter triton humming".split()),
    "bf16": frozenset("triton batched_triton flashinfer_trtllm flashinfer_cutlass aiter".split()),
    "int4": frozenset("triton marlin humming flashinfer_trtllm emulation rdna3".split()),
}
"""Explicit values that a format's selector takes; any other raises `moe_backend='X' is not supported for ... MoE`."""

ORACLE = {
    "nvfp4": "nvfp4.py",
    "mxfp4": "mxfp4.py",
    "fp8": "fp8.py",
    "mxfp8": "mxfp8.py",
    "bf16": "unquantized.py",
    "int4": "int_wna16.py",
}

LINEAR_VALUES = frozenset(
    "auto cutlass flashinfer_cutlass flashinfer_cutedsl flashinfer_trtllm flashinfer_cudnn flashinfer_b12x b12x marlin "
    "humming triton deep_gemm torch aiter machete fbgemm conch exllama emulation xpu xpu_woq".split()
)
"""Values of --linear-backend in 0.32."""

REMOVED_ENV: dict[str, tuple[Version, str]] = {
    **dict.fromkeys(
        (
            "VLLM_USE_FLASHINFER_MOE_FP4",
            "VLLM_USE_FLASHINFER_MOE_FP8",
            "VLLM_USE_FLASHINFER_MOE_FP16",
            "VLLM_FLASHINFER_MOE_BACKEND",
            "VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8",
            "VLLM_USE_FLASHINFER_MOE_MXFP4_BF16",
            "VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8_CUTLASS",
            "VLLM_MXFP4_USE_MARLIN",
            "VLLM_USE_NVFP4_CT_EMULATIONS",
        ),
        ((0, 24), "--moe-backend"),
    ),
    "VLLM_NVFP4_GEMM_BACKEND": ((0, 24), "--linear-backend"),
    "VLLM_TEST_FORCE_FP8_MARLIN": ((0, 29), "--moe-backend marlin"),
    "VLLM_ATTENTION_BACKEND": ((0, 15), "--attention-backend"),
    "VLLM_ALL2ALL_BACKEND": ((0, 16), "--all2all-backend"),
}
"""Variable -> (version that ignores it, what took its place)."""
