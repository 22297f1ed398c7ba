"""A checkpoint folder on disk: its shape and the exact size of its weights, without loading any.

Reads `config.json`, `model.safetensors.index.json` and the headers of the `.safetensors` files. A file is eight bytes
with its header's length, little endian; the header, JSON, tensor name -> dtype, shape, data_offsets; then the data.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.core.errors import BadFile, UsageError
from sweeper.core.geometry import Geometry, UnknownGeometry, geometry_from_config

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a folder holds. Sizes in bytes, of tensor data only."""

    folder: Path
    geometry: Geometry
    weights_bytes: int
    bytes_by_part: dict[str, int]
    """routed, mtp and the rest: what the tensor names tell."""
    tensors: int
    files: tuple[str, ...]


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Raises UsageError where the folder or its weights are missing, BadFile where a file is broken or cut off."""
    path = Path(folder).expanduser()
    config = read_config(path)
    shape = _geometry(path, config)
    files = _weight_files(path)
    by_part: dict[str, int] = {}
    tensors = 0
    for file in files:
        for name, size in tensor_sizes(file).items():
            tensors += 1
            part = _part_of(name, shape)
            by_part[part] = by_part.get(part, 0) + size
    return Checkpoint(
        folder=path,
        geometry=shape,
        weights_bytes=sum(size for part, size in by_part.items() if part != "mtp"),
        bytes_by_part=by_part,
        tensors=tensors,
        files=tuple(file.name for file in files),
    )


def read_geometry(folder: str | Path) -> Geometry:
    """Only the shape. Raises as `read_checkpoint`."""
    path = Path(folder).expanduser()
    return _geometry(path, read_config(path))


def read_config(path: Path) -> dict[str, Any]:
    """`config.json` of a folder."""
    if not path.is_dir():
        raise UsageError(
            f"no model folder {path}", hint="give the folder that holds config.json, or a hub id such as org/name"
        )
    return _json(path / "config.json", hint="a checkpoint folder holds config.json and *.safetensors")


def _geometry(path: Path, config: dict[str, Any]) -> Geometry:
    try:
        return geometry_from_config(config)
    except UnknownGeometry as error:
        raise BadFile(str(path / "config.json"), error.message.removeprefix("config.json: "), hint=error.hint) from None


def _json(file: Path, *, hint: str) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(str(file), "no such file", hint=hint) from None
    except json.JSONDecodeError as error:
        raise BadFile(str(file), f"not JSON: {error.msg}", line=error.lineno, hint=hint) from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile(str(file), f"cannot be read: {error}", hint=hint) from None
    if not isinstance(data, dict):
        raise BadFile(str(file), "not a JSON object", hint=hint)
    return data


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if not index.exists():
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise UsageError(f"no *.safetensors in {path}", hint="download the weights, or give another folder")
        return found
    weight_map = _json(index, hint="download the index again").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFile(str(index), "no list of tensors", key="weight_map", hint="download the index again")
    files = [path / str(name) for name in sorted(set(weight_map.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BadFile(
            str(index),
            f"{len(missing)} of {len(files)} weight files are missing: {', '.join(missing[:3])}{more}",
            key="weight_map",
            hint="the download is not complete; run it again",
        )
    return files


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


def _part_of(name: str, shape: Geometry) -> str:
    if name.startswith("mtp.") or ".mtp." in name:
        return "mtp"
    pieces = name.split(".")
    if "layers" in pieces:
        after = pieces[pieces.index("layers") + 1 :]
        if after and after[0].isdigit() and int(after[0]) >= shape.layers:
            return "mtp"
    if ".experts." in name:
        return "routed"
    return "other"
