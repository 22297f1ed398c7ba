"""Stream tensors into safetensors shards: memory stays at one shard plus the matrices in work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 1_000_000_000


class ShardWriter:
    """Add tensors in order, then `close`; both may raise OSError. Several shards get an index."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[list[str]] = []
        self.total_bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self._limit:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._pending_bytes += size
        self.total_bytes += size

    def close(self) -> None:
        """Write what is left and give the shards their final names."""
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._folder / "model.safetensors")
            return
        names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        for i, name in enumerate(names):
            self._part(i).rename(self._folder / name)
        where = {tensor: names[i] for i, tensors in enumerate(self._shards) for tensor in tensors}
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": where}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors.tmp"

    def _flush(self) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        part = self._part(len(self._shards))
        try:
            save_file(self._pending, part, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, under a class of its own
            raise OSError(str(error)) from None
        # safetensors makes files for the owner only; an engine in a container runs as somebody else.
        part.chmod(0o644)
        self._shards.append(list(self._pending))
        self._pending, self._pending_bytes = {}, 0
