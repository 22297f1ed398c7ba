"""How vLLM takes a kernel choice, by version: a flag, environment variables, or not at all.

From the released wheels 0.9.2 to 0.33.0 (vllm/config/kernel.py, vllm/engine/arg_utils.py, vllm/envs.py). A first or
last version is one of the wheels compared, so an edge may be off by the releases between two of them.
"""

from __future__ import annotations

from sweeper.engines.versions import Version

MOE_FLAG_SINCE: Version = (0, 17)
LINEAR_FLAG_SINCE: Version = (0, 22)
ATTENTION_FLAG_SINCE: Version = (0, 15)
DRAFT_MOE_SINCE: Version = (0, 19, 1)
MTP_NAME_SINCE: Version = (0, 11)

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
