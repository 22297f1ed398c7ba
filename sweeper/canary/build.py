"""Build a canary: config, weights in the wanted format, tokenizer, golden vectors.

Two worker threads draw and quantise matrices, the calling thread writes shards, so memory holds one shard and a few
matrices whatever the model's size.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.canary import heap, schema, tokenizer
from sweeper.canary.formats import FORMATS, Format
from sweeper.canary.schema import Role, TensorSpec
from sweeper.canary.weights import RandomWeights, StoredWeights, Weights
from sweeper.canary.writer import ShardWriter
from sweeper.core.errors import EnvironmentNotReady, UsageError

if TYPE_CHECKING:
    from torch import Tensor

WORKERS = 2
AHEAD = 6
"""Matrices in work or waiting for the writer; bounds memory."""

Progress = Callable[[str], None]

_EXPERT_ROLES = (Role.EXPERT_IN, Role.EXPERT_OUT, Role.MLP_IN, Role.MLP_OUT)
_ATTENTION_ROLES = (Role.ATTENTION_IN, Role.ATTENTION_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that determines the bytes. `keep_weights`: a folder whose trained weights are re-formatted."""

    config: dict[str, Any]
    quant: str = "bf16"
    seed: int = 0
    keep_weights: Path | None = None


def quantised(spec: TensorSpec, fmt: Format, config: dict[str, Any]) -> bool:
    """Whether this tensor is stored in `fmt`.

    Experts and dense MLPs always; attention where published checkpoints of the family do it, too. Embedding, head,
    router, gates, linear attention and the MTP layer stay bf16.
    """
    if fmt.name == "bf16" or spec.name.startswith("mtp.") or _in_mtp_layer(spec.name, config):
        return False
    if len(spec.shape) != 2 or spec.shape[1] % fmt.min_multiple:
        return False
    if spec.role in _EXPERT_ROLES:
        return True
    plain = config["model_type"] in ("qwen3_moe", "mixtral", "glm4_moe", "minimax_m2")
    return spec.role in _ATTENTION_ROLES and plain and spec.name.endswith("_proj.weight")


def _in_mtp_layer(name: str, config: dict[str, Any]) -> bool:
    return name.startswith(f"model.layers.{config['num_hidden_layers']}.")


def refuse_used(folder: Path) -> None:
    """Raises UsageError for a file, or a folder that holds something."""
    if folder.is_file():
        raise UsageError(f"{folder}: a file", hint="Give a new folder with --out")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: not empty", hint="Give a new folder with --out")


def write_checkpoint(recipe: Recipe, folder: Path, progress: Progress = lambda text: None) -> int:
    """Config, tokenizer and weights into `folder` (made, must be empty); returns the bytes of weights.

    Raises UsageError for a format that the model type cannot have.
    """
    refuse_used(folder)
    folder.mkdir(parents=True, exist_ok=True)
    heap.return_large_blocks()
    fmt, config = FORMATS[recipe.quant], recipe.config
    fused = config["model_type"] == "gpt_oss"
    if fused and recipe.quant not in ("bf16", "mxfp4"):
        raise UsageError(f"--quant {recipe.quant}: GPT-OSS checkpoints exist in mxfp4 and bf16 only")
    specs = schema.tensors(config)
    _must_fit(specs, folder)
    source: Weights = StoredWeights(recipe.keep_weights) if recipe.keep_weights else RandomWeights(config, recipe.seed)
    _write_configs(recipe, specs, folder)
    writer = ShardWriter(folder)
    for number, (name, tensor) in enumerate(_stream(specs, source, fmt, config)):
        writer.add(name, tensor)
        if number % 500 == 499:
            progress(f"{writer.total_bytes / 1e9:.1f} GB of weights")
    writer.close()
    return writer.total_bytes


def _must_fit(specs: list[TensorSpec], folder: Path) -> None:
    """Raises EnvironmentNotReady before the first byte where even four bits a weight fill the disk."""
    least, free = sum(math.prod(spec.shape) for spec in specs) // 2, shutil.disk_usage(folder).free
    if least > free:
        raise EnvironmentNotReady(
            f"{folder.parent}: {free / 1e9:.1f} GB free, the weights take at least {least / 1e9:.1f} GB",
            hint="Fewer --layers or --experts, or another disk with --out",
        )


def _stream(
    specs: list[TensorSpec], source: Weights, fmt: Format, config: dict[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    import torch

    groups: dict[str, list[TensorSpec]] = defaultdict(list)
    for spec in specs:
        groups[spec.group].append(spec)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    waiting: deque[Future[dict[str, Tensor]]] = deque()
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for spec in specs:
                waiting.append(pool.submit(_encode, spec, groups[spec.group], source, fmt, config))
                if len(waiting) >= AHEAD:
                    yield from waiting.popleft().result().items()
            while waiting:
                yield from waiting.popleft().result().items()
    finally:
        torch.set_num_threads(threads)


def _encode(
    spec: TensorSpec, group: list[TensorSpec], source: Weights, fmt: Format, config: dict[str, Any]
) -> dict[str, Tensor]:
    import torch

    weight = source.tensor(spec)
    if fmt.name == "mxfp4" and config["model_type"] == "gpt_oss" and len(spec.shape) == 3:
        return _fused_mxfp4(spec.name, weight, fmt)
    if not quantised(spec, fmt, config):
        keep = spec.role in (Role.ROUTER_BIAS, Role.DECAY)
        return {spec.name: weight if keep else weight.to(torch.bfloat16)}
    parts = fmt.encode(weight, source.amax(group))
    return {f"{spec.module}.{suffix}": tensor for suffix, tensor in parts.items()}


def _fused_mxfp4(name: str, weight: Tensor, fmt: Format) -> dict[str, Tensor]:
    """[experts, in, out] -> GPT-OSS blocks [experts, out, in / 32, 16] and scales [experts, out, in / 32]."""
    import torch

    parts = [fmt.encode(expert.t().contiguous(), 0.0) for expert in weight]
    blocks = torch.stack([part["weight_packed"] for part in parts])
    scales = torch.stack([part["weight_scale"] for part in parts])
    return {f"{name}_blocks": blocks.view(*scales.shape, 16), f"{name}_scales": scales}


def _write_configs(recipe: Recipe, specs: list[TensorSpec], folder: Path) -> None:
    fmt, config = FORMATS[recipe.quant], dict(recipe.config)
    matrices = [spec for spec in specs if len(spec.shape) == 2 and spec.role not in (Role.EMBED, Role.ROUTER_BIAS)]
    ignore = [spec.module for spec in matrices if not quantised(spec, fmt, config)]
    method = fmt.config(ignore)
    if recipe.quant == "mxfp4" and config["model_type"] == "gpt_oss":
        method = {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
            ],
        }  # fmt: skip
    if method is not None:
        config["quantization_config"] = method
    _write_json(folder / "config.json", config)
    if recipe.quant == "nvfp4":
        _write_json(
            folder / "hf_quant_config.json",
            {
                "producer": {"name": "modelopt", "version": "0.29.0"},
                "quantization": {
                    "quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": ignore,
                },
            },
        )  # fmt: skip
    _write_json(folder / "generation_config.json", {"eos_token_id": [0, 3], "pad_token_id": 0, "do_sample": False})
    source = "stored" if recipe.keep_weights else "seed"
    _write_json(
        folder / "sweeper_canary.json", {"schema": 1, "quant": recipe.quant, "seed": recipe.seed, "weights": source}
    )
    if recipe.keep_weights and (recipe.keep_weights / "tokenizer.json").is_file():
        for name in tokenizer.FILES:
            if (recipe.keep_weights / name).is_file():
                shutil.copyfile(recipe.keep_weights / name, folder / name)
    else:
        tokenizer.save(folder, int(config["vocab_size"]), int(config["max_position_embeddings"]))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
