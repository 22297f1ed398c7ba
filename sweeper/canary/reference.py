"""The float32 reference: transformers' own model class over a checkpoint's dequantised weights.

Everything but routed experts is loaded; an expert's matrices are dequantised when the class indexes them, so the
reference of a checkpoint far larger than memory runs, with the class's own code.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.canary import heap, schema
from sweeper.canary.formats import FORMATS, unpack_e2m1

if TYPE_CHECKING:
    from torch import Tensor

NAME = "sweeper_name"
"""Attribute of a loaded matrix: its name on disk (the first one, where several are fused)."""
CACHE_BYTES = 3_400_000_000
REOPEN_BYTES = 1_000_000_000


class Checkpoint:
    """Tensors of a folder by name on disk, decoded to float32."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.quant = str(json.loads((folder / "sweeper_canary.json").read_text("utf-8"))["quant"])
        self._format = FORMATS[self.quant]
        self._files: dict[str, Any] = {}
        self._open()

    def _open(self) -> None:
        """Map the shards anew: pages read through an old mapping no longer count as this process's memory."""
        from safetensors import safe_open

        self._files.clear()
        self._read = 0
        for path in sorted(self._folder.glob("*.safetensors")):
            handle = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(handle.keys(), handle)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def raw(self, name: str) -> Tensor:
        if self._read > REOPEN_BYTES:
            self._open()
        tensor: Tensor = self._files[name].get_tensor(name)
        self._read += tensor.numel() * tensor.element_size()
        return tensor

    def tensor(self, name: str) -> Tensor:
        """float32 of tensor `name`, whatever format it is stored in. Raises KeyError."""
        module, _, leaf = name.rpartition(".")
        quantised = {
            suffix: f"{module}.{suffix}" for suffix in _SUFFIXES if leaf == "weight" and f"{module}.{suffix}" in self
        }
        if len(quantised) > 1:
            return self._format.decode({suffix: self.raw(full) for suffix, full in quantised.items()})
        return self.raw(name).float()

    def fused_mxfp4(self, name: str, expert: int) -> Tensor:
        """[in, out] of one expert in GPT-OSS's blocks."""
        import torch

        blocks = self._files[f"{name}_blocks"].get_slice(f"{name}_blocks")[expert]
        scales = self._files[f"{name}_scales"].get_slice(f"{name}_scales")[expert]
        values = unpack_e2m1(blocks) * torch.exp2(scales.float() - 127)[..., None]
        return values.reshape(values.shape[0], -1).t()


_SUFFIXES = (
    "weight", "weight_packed", "weight_scale", "weight_scale_inv", "weight_scale_2", "weight_global_scale",
    "input_scale", "weight_shape",
)  # fmt: skip


class LazyExperts:
    """Stands in for a `[experts, ...]` parameter: `self[e]` dequantises expert e, keeping the latest in memory."""

    cache: OrderedDict[tuple[int, int], Tensor]

    def __init__(self, checkpoint: Checkpoint, names: list[list[str]], fused: str | None, shared: dict[str, Any]):
        self._checkpoint, self._names, self._fused, self._shared = checkpoint, names, fused, shared

    def __getitem__(self, index: Any) -> Tensor:
        cache: OrderedDict[tuple[int, int], Tensor] = self._shared["cache"]
        key = (id(self), int(index))
        if key not in cache:
            cache[key] = self._load(int(index))
            self._shared["bytes"] += cache[key].numel() * 4
            while self._shared["bytes"] > CACHE_BYTES and len(cache) > 1:
                self._shared["bytes"] -= cache.popitem(last=False)[1].numel() * 4
        cache.move_to_end(key)
        return cache[key]

    def _load(self, expert: int) -> Tensor:
        import torch

        if self._fused:
            if self._fused in self._checkpoint:
                return self._checkpoint.raw(self._fused)[expert].float()
            return self._checkpoint.fused_mxfp4(self._fused, expert)
        parts = [self._checkpoint.tensor(name) for name in self._names[expert]]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        setattr(whole, NAME, self._names[expert][0])
        return whole


def load(folder: Path) -> Any:
    """The transformers model in float32, eager attention and experts, ready for `no_grad` calls."""
    heap.return_large_blocks()
    checkpoint = Checkpoint(folder)
    model = schema.empty_model(checkpoint.config)
    model.set_attn_implementation("eager")
    _replace_experts(model, checkpoint)
    _load_dense(model, checkpoint)
    _refresh_buffers(model)
    return model.eval()


class Routing:
    """Collects the experts that every forward chooses, by layer: tensors [rows * tokens, top-k]."""

    def __init__(self, model: Any) -> None:
        self.chosen: dict[int, Tensor] = {}
        for path, module in model.named_modules():
            if isinstance(getattr(module, "gate_up_proj", None), LazyExperts):
                layer = int(re.findall(r"\.layers\.(\d+)\.", path)[0])
                module.register_forward_pre_hook(lambda _, args, layer=layer: self._note(layer, args))

    def _note(self, layer: int, args: tuple[Any, ...]) -> None:
        self.chosen[layer] = next(arg for arg in args[1:] if not arg.is_floating_point())


def disk_name(name: str, checkpoint: Checkpoint) -> str:
    """Name in the file of a parameter of the class."""
    for candidate in (name, name.replace(".mlp.gate.e_score", ".mlp.e_score")):
        for there in (candidate, candidate.replace(".mlp.", ".block_sparse_moe.")):
            module = there.removesuffix(".weight")
            if there in checkpoint or f"{module}.weight_packed" in checkpoint:
                return there
    raise KeyError(f"{name}: not in the checkpoint")


def _load_dense(model: Any, checkpoint: Checkpoint) -> None:
    import torch

    for name, old in [*model.named_parameters(), *model.named_buffers()]:
        owner, leaf = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        if leaf in owner._buffers and leaf in owner._non_persistent_buffers_set:
            continue
        there = disk_name(name, checkpoint)
        value = checkpoint.tensor(there).view(old.shape)
        if leaf in owner._buffers:
            owner._buffers[leaf] = value
        else:
            owner._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)
            setattr(owner._parameters[leaf], NAME, there)


def _replace_experts(model: Any, checkpoint: Checkpoint) -> None:
    shared: dict[str, Any] = {"cache": OrderedDict(), "bytes": 0}
    for path, module in model.named_modules():
        if "gate_up_proj" not in module._parameters or module._parameters["gate_up_proj"].dim() != 3:
            continue
        count = module._parameters["gate_up_proj"].shape[0]
        for attribute, leaves in (("gate_up_proj", _IN), ("down_proj", _OUT)):
            del module._parameters[attribute]
            fused = f"{path}.{attribute}" if _is_fused(checkpoint, f"{path}.{attribute}") else None
            names = [] if fused else [_expert_names(checkpoint, path, e, leaves) for e in range(count)]
            object.__setattr__(module, attribute, LazyExperts(checkpoint, names, fused, shared))


_IN, _OUT = (("gate_proj", "up_proj"), ("w1", "w3")), (("down_proj",), ("w2",))


def _is_fused(checkpoint: Checkpoint, name: str) -> bool:
    return name in checkpoint or f"{name}_blocks" in checkpoint


def _expert_names(checkpoint: Checkpoint, path: str, expert: int, leaves: tuple[tuple[str, ...], ...]) -> list[str]:
    for base in (path, re.sub(r"\.mlp\.experts$", ".block_sparse_moe.experts", path)):
        for kind in leaves:
            names = [f"{base}.{expert}.{leaf}.weight" for leaf in kind]
            packed = names[0].replace(".weight", ".weight_packed")
            if names[0] in checkpoint or packed in checkpoint:
                return names
    raise KeyError(f"{path}: expert {expert} is not in the checkpoint")


def _refresh_buffers(model: Any) -> None:
    """Rotary tables were made on the meta device: make them again, for real."""
    for path, module in list(model.named_modules()):
        if not any(buffer.is_meta for buffer in module._buffers.values() if buffer is not None):
            continue
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, type(module)(config=model.config))
