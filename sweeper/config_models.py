"""What a checkpoint on this disk says about itself: geometry, exact size, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeper import catalogue
from sweeper.checkpoint import tensor_sizes
from sweeper.core.errors import BadFile, UsageError
from sweeper.core.geometry import Geometry, geometry_from_config

_INDEX = "model.safetensors.index.json"


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
    try:
        for file in sorted(path.glob("*.safetensors")):
            tensor_sizes(file)
    except BadFile as broken:
        return f"{broken.message}; {broken.hint}"
    return None


def _json(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
