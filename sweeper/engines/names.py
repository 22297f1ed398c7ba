"""Names that engines print, turned into the words of their command lines."""

from __future__ import annotations

import re

_MOE = {
    "VLLM_CUTLASS": "cutlass",
    "BATCHED_VLLM_CUTLASS": "cutlass",
    "CUTLASS_MXFP4_MXFP4": "cutlass",
    "DEEPGEMM": "deep_gemm",
    "BATCHED_DEEPGEMM": "deep_gemm",
    "DEEPGEMM_MXFP4": "deep_gemm",
    "FLASHINFER_MOE_EP_DEEP_GEMM": "flashinfer_moe_ep_mega_deep_gemm",
    "FLASHINFER_CUTEDSL_BATCHED": "flashinfer_cutedsl",
    "FLASHINFER_MXFP4_MXFP8": "flashinfer_trtllm",
    "BATCHED_MARLIN": "marlin",
    "ROCM_AITER": "aiter",
    "TRITON_MXFP8": "triton",
    "CPU_W8A8": "cpu",
    "ZEN_CPU": "cpu",
    "CUTEDSL": "flashinfer_cutedsl",
    "FLASHINFER": "flashinfer_cutlass",
}
_VARIANT = re.compile(r"^(FLASHINFER_TRTLLM|FLASHINFER_CUTLASS|B12X|AITER)_(?:MXFP4|BF16|MXFP8|AFP8|FP8|NVFP4)\w*$")


def moe(raw: str) -> str:
    """`VLLM_CUTLASS` -> cutlass, `FlashInfer CUTLASS` -> flashinfer_cutlass, `DEEPGEMM` -> deep_gemm, `CPU` -> cpu.

    A name that no table knows comes back in lower case with underscores.
    """
    name = raw.strip().upper().replace(" ", "_").replace("-", "_")
    if name in _MOE:
        return _MOE[name]
    variant = _VARIANT.match(name)
    return (variant.group(1) if variant else name).lower()


_ATTENTION = {
    "FLASH_ATTENTION": "FLASH_ATTN",
    "FLASHATTENTION": "FLASH_ATTN",
    "TRITON": "TRITON_ATTN",
    "TRITON_ATTENTION": "TRITON_ATTN",
    "XFORMERS": "XFORMERS",
    "TORCH_SDPA": "TORCH_SDPA",
}


def attention(raw: str) -> str:
    """`AttentionBackendEnum.TRITON_ATTN` -> TRITON_ATTN, `Flash Attention` -> FLASH_ATTN."""
    name = raw.split(".")[-1].strip().upper().replace(" ", "_").replace("-", "_")
    return _ATTENTION.get(name, name)


_KERNEL_CLASS = re.compile(
    r"^(?P<head>FlashInfer(?:CuteDsl|Cutedsl|Cutlass|Trtllm|Cudnn|B12x|Fp8DeepGEMM)?|CuteDsl|Cutlass|Marlin|Humming"
    r"|B12x|Emulation|DeepGemm|Triton|Machete|Conch|Exllama|Fbgemm|Aiter|ROCm|Rocm|Torch|PerTensorTorch|RowWiseTorch"
    r"|ChannelWiseTorch|BlockWiseTorch|CPU|XPUW8A16|XPU|Zentorch)"
)
FLASHINFER_DEEP_GEMM = "flashinfer_deep_gemm"
"""Two kernels under one class: FlashInfer below 32 tokens, DeepGEMM from there on. vLLM's command line files it under
`flashinfer_cutlass`, which neither of them is (vllm/model_executor/kernels/linear/scaled_mm/flashinfer.py)."""
_LINEAR = {
    "FlashInfer": "flashinfer_cutlass",
    "FlashInferFp8DeepGEMM": FLASHINFER_DEEP_GEMM,
    "XPUW8A16": "xpu_woq",
    "FlashInferCuteDsl": "flashinfer_cutedsl",
    "FlashInferCutedsl": "flashinfer_cutedsl",
    "CuteDsl": "flashinfer_cutedsl",
    "FlashInferCutlass": "flashinfer_cutlass",
    "FlashInferTrtllm": "flashinfer_trtllm",
    "FlashInferCudnn": "flashinfer_cudnn",
    "FlashInferB12x": "flashinfer_b12x",
    "DeepGemm": "deep_gemm",
    "PerTensorTorch": "torch",
    "RowWiseTorch": "torch",
    "ChannelWiseTorch": "torch",
    "BlockWiseTorch": "torch",
}


def linear(raw: str) -> str:
    """`FlashInferCutlassNvFp4LinearKernel` -> flashinfer_cutlass, `CutlassFP8ScaledMMLinearKernel` -> cutlass."""
    found = _KERNEL_CLASS.match(raw)
    if not found:
        return raw.strip().lower().replace("-", "_")
    return _LINEAR.get(found.group("head"), found.group("head").lower())
