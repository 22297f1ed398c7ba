"""What a checkpoint on this disk says about itself: geometry, exact size, and whether it is whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from sweeper import catalogue
from sweeper.core.errors import UsageError
from sweeper.core.geometry import Geometry, geometry_from_config

_INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100_000_000


def model_geometry(model: str) -> Geometry | None:
    """From the folder's config.json, else from the catalogue; None: neither knows the model."""
    config = _json(Path(model) / "config.json")
    if config is None:
        return catalogue.geometry(model)
    try:
        return geometry_from_config(config)
    except UsageError:
        return None


def weights_bytes(model: str) -> int | None:
    """Bytes of the weight files; None when the model is not on this disk."""
    path = Path(model)
    try:
        if path.is_file():
            return path.stat().st_size
        files = [*path.glob("*.safetensors"), *path.glob("*.gguf")]
        return sum(file.stat().st_size for file in files) if files else None
    except OSError:
        return None


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
    for file in sorted(path.glob("*.safetensors")):
        problem = _cut(file)
        if problem:
            return problem
    return None


def _cut(file: Path) -> str | None:
    """The format: 8 bytes header length, JSON header with data offsets, data (huggingface/safetensors README)."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0] if size >= 8 else 0
            if not 0 < length <= min(size - 8, _MAX_HEADER):
                return f"{file} is cut or not safetensors: {size} bytes"
            header = json.loads(stream.read(length))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{file} cannot be read as safetensors: {error}"
    whole = 8 + length + max(ends, default=0)
    return f"{file} is cut: {size} of {whole} bytes; download it again" if size < whole else None


def _json(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
