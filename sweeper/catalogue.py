"""Geometries of well-known models, shipped as `config.json`-like files, for models that are not on this disk."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from sweeper.core import families
from sweeper.core.errors import UsageError
from sweeper.core.geometry import Geometry, geometry_from_config

_SUFFIX = re.compile(
    r"^(nvfp4|mxfp4|mxfp8|fp4|fp8|awq|gptq|int4|int8|bf16|fp16|w4a16|w8a8|a16|4bit|8bit|instruct|chat|it|base|thinking|"
    r"dynamic|block|static|quantized|modelopt|kv|hf|v\d+|\d{4})$"
)
"""Words after a model's name that do not change its shape."""


@cache
def _entries() -> dict[str, dict[str, Any]]:
    folder = resources.files("sweeper.data") / "models"
    found = [json.loads(item.read_text(encoding="utf-8")) for item in folder.iterdir() if item.name.endswith(".json")]
    return {entry["name"]: entry for entry in sorted(found, key=lambda entry: str(entry["name"]).lower())}


def names() -> tuple[str, ...]:
    return tuple(_entries())


def entry(name: str) -> dict[str, Any]:
    """Everything known: name, aliases, source, uncertain, published, config. Raises UsageError for an unknown name."""
    found = find(name)
    if found is None:
        raise UsageError(f"no geometry called {name!r}; there are {', '.join(names())}")
    return copy.deepcopy(_entries()[found])


def find(model: str) -> str | None:
    """Catalogue name of a hub id, a folder name or a variant: `nvidia/Qwen3-32B-NVFP4` -> Qwen3-32B."""
    last = model.rstrip("/").split("/")[-1].lower()
    for name, data in _entries().items():
        if last == name.lower() or model.lower() in (alias.lower() for alias in data["aliases"]):
            return name
        if any(last == alias.split("/")[-1].lower() for alias in data["aliases"]):
            return name
    for name in sorted(_entries(), key=len, reverse=True):
        rest = last.removeprefix(name.lower())
        if rest != last and rest[0] in "-_" and all(_SUFFIX.match(word) for word in re.split(r"[-_]", rest[1:])):
            return name
    return None


_DECLARED: dict[str, dict[str, Any]] = {
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "nvfp4-w4a16": {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"},
    "mxfp4": {"quant_method": "mxfp4"},
    "fp8": {"quant_method": "modelopt", "quant_algo": "FP8"},
    "fp8-block": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}


def config(name: str, quantization: str | None = None) -> dict[str, Any]:
    """The model's `config.json`, a fresh copy; with a `quantization_config` for a family when one is asked for."""
    data = entry(name)
    out: dict[str, Any] = data["config"]
    family = families.family(quantization)
    if family is None:
        return out
    out.pop("quantization_config", None)
    if family in _DECLARED:
        kept = data.get("kept_in_16_bits", {}).get(families.table(family) or "")
        out["quantization_config"] = {**_DECLARED[family], **({"ignore": kept} if kept else {})}
    return out


def geometry(model: str, quantization: str | None = None) -> Geometry | None:
    """Geometry of a model by name, hub id or variant; None when the catalogue does not know it.

    A variant's name (`...-NVFP4`) says its format when `quantization` does not.
    """
    name = find(model)
    if name is None:
        return None
    family = families.family(quantization) or _named_family(model, name)
    shape = geometry_from_config(config(name))
    own = shape.quantization
    if family is not None and family != shape.quantization:
        shape = geometry_from_config(config(name, family))
    if family not in (None, "bf16"):
        shape = replace(shape, quantization=family, format_guessed=family != own)
    kept = entry(name).get("kept_in_16_bits", {})
    known = ((other, geometry_from_config(config(name, other)).quantized_parts or ()) for other in kept)
    return replace(shape, known_parts=tuple(known))


def _named_family(model: str, name: str) -> str | None:
    rest = model.rstrip("/").split("/")[-1].lower().removeprefix(name.lower())
    words = re.split(r"[-_]", rest)
    if "int8" in words or "8bit" in words:
        return "int8" if "int8" in words or "gptq" in words else "8bit"
    known = ("nvfp4", "mxfp4", "mxfp8", "fp8", "bf16", "awq", "gptq", "int4", "w4a16")
    found = [families.family(word) for word in words if word in known]
    if "fp8" in words and ("dynamic" in words or "block" in words):
        return "fp8-dynamic" if "dynamic" in words else "fp8-block"
    # `w8a8` may be fp8 or int8, `4bit` anything: enough for the size, not for the kernels.
    sizes = [word for word in words if word in ("w8a8", "4bit")]
    return next(iter([*found, *sizes]), None)
