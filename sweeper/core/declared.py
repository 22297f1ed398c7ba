"""The number format that a checkpoint's `config.json` declares, in this tool's spelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.core import families


def declared_format(config: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[str | None, tuple[int, int] | None]:
    """(family, block of one scale) from `quantization_config`; (None, None) where there is none."""
    quant = config.get("quantization_config") or text.get("quantization_config")
    if not isinstance(quant, Mapping):
        return None, None
    method = str(quant.get("quant_method", "")).lower()
    algorithm = str(quant.get("quant_algo", "")).upper()
    if "NVFP4" in algorithm:
        return ("nvfp4-w4a16" if "W4A16" in algorithm else "nvfp4"), (1, 16)
    if method == "mxfp4" or "MXFP4" in algorithm:
        return "mxfp4", (1, 32)
    if "MXFP8" in algorithm:
        return "mxfp8", (1, 32)
    if "FP8" in algorithm or method in ("fp8", "fbgemm_fp8"):
        block = quant.get("weight_block_size")
        if isinstance(block, list) and len(block) == 2:
            return "fp8-block", (int(block[0]), int(block[1]))
        return "fp8", None
    if method == "compressed-tensors":
        return _compressed(quant)
    if method in ("modelopt", "modelopt_mixed"):
        # MIXED_PRECISION and what is not listed above: each layer has a format of its own.
        return (None, None) if algorithm != "W4A16_AWQ" else ("int4", None)
    if method == "auto-round" and "fp" in str(quant.get("data_type", "")):
        return None, None
    if method in ("awq", "gptq", "auto-round"):
        group = int(quant.get("group_size") or 128)
        return ("int8" if quant.get("bits") == 8 else "int4"), (1, group) if group > 0 else None
    if method == "bitsandbytes":
        return ("bnb-4bit" if quant.get("load_in_4bit") else "bnb-8bit"), None
    return families.family(method) or None, None


def _compressed(quant: Mapping[str, Any]) -> tuple[str | None, tuple[int, int] | None]:
    """The format of the experts where groups of layers differ and one of them names the experts; else none."""
    groups = quant.get("config_groups")
    listed = [group for group in groups.values() if isinstance(group, Mapping)] if isinstance(groups, Mapping) else []
    if len({_compressed_group(group) for group in listed}) > 1:
        listed = [group for group in listed if "expert" in str(group.get("targets"))]
    found = {_compressed_group(group) for group in listed}
    return found.pop() if len(found) == 1 else (None, None)


def _compressed_group(first: Mapping[str, Any]) -> tuple[str | None, tuple[int, int] | None]:
    weights = first.get("weights") or {}
    bits, kind, group = weights.get("num_bits"), weights.get("type"), weights.get("group_size")
    if bits == 4 and kind == "float":
        plain = "mxfp4" if group == 32 else "nvfp4"
        weight_only = plain == "nvfp4" and not first.get("input_activations")
        return ("nvfp4-w4a16" if weight_only else plain), (1, int(group or 16))
    if bits == 8 and kind == "float":
        block = weights.get("block_structure")
        if group == 32:
            return "mxfp8", (1, 32)
        return ("fp8-block", (int(block[0]), int(block[1]))) if isinstance(block, list) else ("fp8-dynamic", None)
    if bits in (4, 8):
        # With quantized activations these are other kernels, with backends of their own.
        name = "int4-w4a8" if bits == 4 and first.get("input_activations") else f"int{bits}"
        return name, (1, int(group)) if isinstance(group, int) and group > 0 else None
    return None, None
