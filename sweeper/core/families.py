"""Quantisation families: the many names of a checkpoint's format, and which kernel table each belongs to."""

from __future__ import annotations

_ALIASES = {
    "nvfp4": "nvfp4",
    "modelopt_fp4": "nvfp4",
    "modelopt_nvfp4": "nvfp4",
    "nvfp4_w4a4": "nvfp4",
    "nvfp4_w4a16": "nvfp4-w4a16",
    "nvfp4a16": "nvfp4-w4a16",
    "mxfp4": "mxfp4",
    "gpt_oss_mxfp4": "mxfp4",
    "mxfp8": "mxfp8",
    "fp8": "fp8",
    "fp8_block": "fp8-block",
    "fp8_dynamic": "fp8-dynamic",
    "fp8_w8a8": "fp8-dynamic",
    "fp8_channel": "fp8-dynamic",
    "modelopt": "fp8",
    "modelopt_fp8": "fp8",
    "bf16": "bf16",
    "fp16": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "none": "bf16",
    "unquantized": "bf16",
    "int4": "int4",
    "awq": "int4",
    "gptq": "int4",
    "w4a16": "int4",
    "int8": "int8",
    "bnb_8bit": "bnb-8bit",
    "bnb_4bit": "bnb-4bit",
    "nf4": "bnb-4bit",
}

_TABLES = {"nvfp4-w4a16": "nvfp4", "fp8-block": "fp8", "fp8-dynamic": "fp8"}


def family(quantization: str | None) -> str | None:
    """One spelling per format: nvfp4, nvfp4-w4a16, mxfp4, mxfp8, fp8, fp8-block, fp8-dynamic, bf16, int4, int8, bnb-*.

    None for unknown; a name nobody listed comes back in lower case.
    """
    if quantization is None:
        return None
    key = quantization.strip().lower().replace("-", "_")
    return _ALIASES.get(key, quantization.strip().lower())


KNOWN = tuple(dict.fromkeys(_ALIASES.values()))
"""The spellings that `family` gives for formats it knows."""


def table(quantization: str | None) -> str | None:
    """The kernel table of a family: nvfp4, mxfp4, mxfp8, fp8, bf16, int4, ..."""
    name = family(quantization)
    return _TABLES.get(name, name) if name else None
