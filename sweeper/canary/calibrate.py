"""Static input scales for trained weights, as a quantiser sets them: from the largest activation a matrix meets.

NVFP4 activations have one scale per 16 values, in e4m3 under a second-level scale that the checkpoint fixes. Drawn
weights meet activations of a known size. Trained ones do not: the speaking canary's experts meet up to 760, which a
scale made for 64 would cut off, and a healthy kernel would look like a broken one.
"""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

from sweeper.canary import reference
from sweeper.canary.formats import E2M1, E4M3_MAX
from sweeper.canary.schema import group_of

MARGIN = 2.0
"""Room above the largest activation seen. Block scales keep their precision down to 1 / 28,000 of it."""

SUFFIX = ".input_scale"


def shared_name(name: str) -> str:
    """One name for matrices that must share a scale: those that engines fuse, and all experts of a layer."""
    return re.sub(r"\.experts\.\d+\.", ".experts.*.", group_of(name))


def largest_inputs(model: Any, prompts: list[list[int]]) -> dict[str, float]:
    """Largest absolute activation by `shared_name`, over one forward per prompt."""
    import torch
    from torch.overrides import TorchFunctionMode

    found: dict[str, float] = defaultdict(float)

    class Watch(TorchFunctionMode):  # type: ignore[misc]  # torch brings no types here
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(args[1], reference.NAME, None) if func is torch.nn.functional.linear else None
            if name is not None and args[0].numel():
                key = shared_name(name)
                found[key] = max(found[key], float(args[0].abs().max()))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        for ids in prompts:
            model(input_ids=torch.tensor([ids]), use_cache=False)
    return dict(found)


def calibrate(folder: Path, prompts: list[list[int]]) -> int:
    """Set the input scales of an NVFP4 checkpoint in place; returns how many. What met nothing keeps its own."""
    largest = largest_inputs(reference.load(folder), prompts)
    return sum(_rewrite(path, largest) for path in sorted(folder.glob("*.safetensors")))


def _rewrite(path: Path, largest: dict[str, float]) -> int:
    """A safetensors file is 8 bytes of length, a JSON header with offsets, then the data; a scale is one float32."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
        count = 0
        for name, entry in header.items():
            amax = largest.get(shared_name(f"{name.removesuffix(SUFFIX)}.weight")) if name.endswith(SUFFIX) else None
            if amax:
                file.seek(8 + length + entry["data_offsets"][0])
                file.write(struct.pack("<f", MARGIN * amax / (E2M1[-1] * E4M3_MAX)))
                count += 1
    return count
