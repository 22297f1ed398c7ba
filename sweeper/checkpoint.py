"""What a checkpoint on this disk says about itself: geometry, size, and whether it is whole, without loading any of it.

Reads `config.json`, `model.safetensors.index.json` and the headers of the `.safetensors` files. A file is eight bytes
with its header's length, little endian; the header, JSON, tensor name -> dtype, shape, data_offsets; then the data.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper import catalogue
from sweeper.core.errors import BadFile, UsageError
from sweeper.core.geometry import Geometry, geometry_from_config

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
_INDEX = "model.safetensors.index.json"


def model_geometry(model: str) -> Geometry | None:
    """From the folder's config.json, else from the catalogue; None: neither knows the model.

    Older ModelOpt exports keep the format in a file of its own, which vLLM reads as well.
    """
    config = _json(Path(model) / "config.json")
    if config is None:
        return catalogue.geometry(model)
    apart = (_json(Path(model) / "hf_quant_config.json") or {}).get("quantization")
    if not config.get("quantization_config") and isinstance(apart, dict):
        config["quantization_config"] = {"quant_method": "modelopt", **apart}
    try:
        return replace(geometry_from_config(config), stored_bytes=weights_bytes(model))
    except UsageError:
        return None


def weights_bytes(model: str) -> int | None:
    """Bytes of the weight files; None when the model is not on this disk."""
    path = Path(model)
    try:
        if path.is_file():
            return path.stat().st_size
        files = _indexed(path) or [*path.glob("*.safetensors"), *path.glob("*.gguf")]
        return sum(file.stat().st_size for file in files) if files else None
    except OSError:
        return None


def _indexed(path: Path) -> list[Path]:
    """The files that the index lists, where all are there: a folder may hold the same weights in a second layout."""
    listed = (_json(path / _INDEX) or {}).get("weight_map")
    files = [path / name for name in sorted(set(map(str, listed.values())))] if isinstance(listed, dict) else []
    return files if all(file.is_file() for file in files) else []


def model_problem(model: str) -> str | None:
    """Why a checkpoint written as a path cannot be loaded; None when nothing is wrong that can be seen from outside.

    Reads the header of every safetensors file (kilobytes each), not the weights.
    """
    if not model.startswith(("/", ".", "~")):
        return None
    path = Path(model)
    if not path.exists():
        return f"the model {model} does not exist; look with: ls {path.parent}"
    if path.is_file():
        return None
    if not (path / "config.json").is_file():
        return f"{model} has no config.json: not a checkpoint folder"
    if _json(path / "config.json") is None:
        return f"{path / 'config.json'} is not a JSON object"
    index = _json(path / _INDEX) or {}
    listed = index.get("weight_map")
    wanted = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    missing = [name for name in wanted if not (path / name).is_file()]
    if missing:
        return f"{model} is incomplete: {len(missing)} of {len(wanted)} weight files are missing, first {missing[0]}"
    try:
        for file in sorted(path.glob("*.safetensors")):
            tensor_sizes(file)
    except BadFile as broken:
        return f"{broken.message}; {broken.hint}"
    return None


def tensor_sizes(file: Path) -> dict[str, int]:
    """Bytes of every tensor of one `.safetensors` file. Raises BadFile when the file is not whole."""
    header, begin, size = _header(file)
    out: dict[str, int] = {}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            first, last = entry["data_offsets"]
            out[name] = int(last) - int(first)
            end = max(end, int(last))
        except (KeyError, TypeError, ValueError):
            raise BadFile(str(file), f"tensor {name} has no data_offsets", hint="download the file again") from None
    if begin + end > size:
        raise BadFile(
            str(file),
            f"cut off: its header promises {begin + end:,} bytes, the file has {size:,}",
            hint="download the file again",
        )
    return out


def _header(file: Path) -> tuple[dict[str, Any], int, int]:
    """(header, where the data begins, size of the file)."""
    hint = "download the file again"
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            lead = stream.read(8)
            if len(lead) < 8:
                raise BadFile(str(file), f"cut off: {size} bytes are no safetensors file", hint=hint)
            length = struct.unpack("<Q", lead)[0]
            if length > min(MAX_HEADER_BYTES, size - 8):
                what = "git-lfs pointer" if lead.startswith(b"version ") else "header longer than the file"
                raise BadFile(str(file), f"not a whole safetensors file ({what})", hint=hint)
            text = stream.read(length)
    except OSError as error:
        raise BadFile(str(file), f"cannot be read: {error.strerror}", hint=hint) from None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFile(str(file), "its header is not JSON", hint=hint) from None
    if not isinstance(header, dict):
        raise BadFile(str(file), "its header is not a JSON object", hint=hint)
    return header, 8 + length, size


def _json(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
