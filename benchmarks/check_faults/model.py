"""A Qwen3-MoE forward in float32 that rounds where real kernels round, with places where a fault can be put in.

Written for the benchmark, independent of transformers: without noise it reproduces the golden vectors to 1e-4, with it
it stands for a healthy kernel (bf16 activations, another order of summation per run and batch size, activations in
e4m3 or e2m1 where the checkpoint's format says so).
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweeper.canary.formats import FORMATS
from sweeper.canary.reference import Checkpoint

LARGE_BATCH = 4
MOST_CUTS = 3


@dataclass(slots=True, kw_only=True)
class Faults:
    """What is broken. Every field's default is healthy.

    `parts(name, tensors)` edits a matrix as stored, before it is decoded; `weights(model)` edits decoded matrices.
    `router(logits, top_k)` returns (logits, top_k). `output(layer, x)` edits what a layer adds to the residual stream.
    """

    parts: Callable[[str, dict[str, Tensor]], dict[str, Tensor]] | None = None
    weights: Callable[[Model], None] | None = None
    router: Callable[[Tensor, int], tuple[Tensor, int]] | None = None
    renormalise: bool = True
    output: Callable[[int, Tensor], Tensor] | None = None
    activation: Callable[[Tensor], Tensor] = torch.nn.functional.silu
    stale_kv: bool = False
    position_offset: int = 0
    attention_window: int | None = None
    lost_rank: bool = False
    min_batch: int = 0
    """The fault shows only in batches larger than this."""
    collapse_rate: float = 0.0
    logit_scale: float = 1.0
    saturate: float | None = None


@dataclass(slots=True, kw_only=True)
class Noise:
    """Healthy differences: partial sums per matrix product, results rounded to bf16. None with exact=True."""

    exact: bool = False
    seed: int = 0
    tensor_parallel: int = 1
    weight_only: bool = False
    """Activations stay bf16 whatever the checkpoint's format, as in Marlin kernels."""

    def edges(self, size: int, large: bool) -> list[list[int]]:
        """Per rank, where its sum over `size` terms is cut: at other places in every run and kind of batch."""
        draw = random.Random(f"{self.seed}/{size}/{large}")
        ranks = []
        for rank in range(self.tensor_parallel):
            first, last = (size * place // self.tensor_parallel for place in (rank, rank + 1))
            count = min(draw.randint(0, MOST_CUTS), last - first - 1)
            ranks.append([first, *sorted(draw.sample(range(first + 1, last), count)), last])
        return ranks

    def rounds(self, place: str) -> bool:
        """Whether this kernel rounds to bf16 at a place where kernels differ: fused ones keep float32 there."""
        return random.Random(f"{self.seed}/{place}").random() < 0.5


@dataclass(slots=True)
class Cache:
    """Keys and values per layer, [rows, kv heads, places, head size], and how many places of a row are written."""

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor


@dataclass(slots=True)
class Model:
    """A checkpoint in memory. Per layer: `experts_in` [experts, 2 * size, hidden], `experts_out` [.., hidden, size]."""

    config: dict[str, Any]
    quant: str
    tensors: dict[str, Tensor]
    experts_in: list[Tensor]
    experts_out: list[Tensor]
    input_scales: dict[str, float] = field(default_factory=dict)
    """NVFP4: second-level scale of a matrix's inputs, as stored; experts under `N.experts_in` and `N.experts_out`."""
    faults: Faults = field(default_factory=Faults)
    noise: Noise = field(default_factory=Noise)
    batch: int = 1
    """Requests that are served together; what a kernel would choose its tiles by."""
    prefixes: dict[tuple[tuple[int, ...], bool], tuple[Cache, Tensor]] = field(default_factory=dict)
    answers: dict[tuple[tuple[int, ...], bool], list[Any]] = field(default_factory=dict)

    def large(self) -> bool:
        """The two kinds of batch for which kernels are chosen differently here."""
        return self.batch > LARGE_BATCH

    def broken(self) -> bool:
        return self.batch > self.faults.min_batch

    def new_cache(self, rows: int, places: int) -> Cache:
        shape = (rows, self.config["num_key_value_heads"], places, self.config["head_dim"])
        layers = range(self.config["num_hidden_layers"])
        empty = [torch.zeros(shape) for _ in layers]
        return Cache(empty, [torch.zeros(shape) for _ in layers], torch.zeros(rows, dtype=torch.long))

    def forward(self, ids: Tensor, cache: Cache) -> Tensor:
        """Logits [rows, tokens, vocabulary] for the next `ids` of every row; extends the cache."""
        places = cache.lengths[:, None] + torch.arange(ids.shape[1])[None]
        x = self.tensors["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            x = self._at(
                "residual", x + self._attention(layer, self._norm(x, name + "input_layernorm.weight"), places, cache)
            )
            added = self._moe(layer, self._norm(x, name + "post_attention_layernorm.weight"))
            if self.faults.output and self.broken():
                added = self.faults.output(layer, added)
            x = self._at("residual", x + added)
        cache.lengths += ids.shape[1]
        logits = self._linear(self._norm(x, "model.norm.weight"), self.tensors["lm_head.weight"], "head")
        return logits * self.faults.logit_scale if self.broken() else logits

    def _attention(self, layer: int, x: Tensor, places: Tensor, cache: Cache) -> Tensor:
        heads, kv, size = (self.config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        name = f"model.layers.{layer}.self_attn."
        rows, tokens, _ = x.shape
        q, k, v = (
            self._matrix(x, f"{name}{kind}_proj.weight").view(rows, tokens, count, size).transpose(1, 2)
            for kind, count in (("q", heads), ("k", kv), ("v", kv))
        )
        offset = self.faults.position_offset if self.broken() and tokens == 1 else 0
        q = self._round(self._rotate(self._norm(q, name + "q_norm.weight"), places + offset))
        k = self._round(self._rotate(self._norm(k, name + "k_norm.weight"), places))
        self._write(layer, k, v, places, cache)
        keys, values = (part[layer].repeat_interleave(heads // kv, 1) for part in (cache.keys, cache.values))
        scores = q @ keys.transpose(2, 3) / size**0.5
        seen = torch.arange(keys.shape[2])
        hidden = seen[None, None] > places[:, :, None]
        if self.faults.attention_window and self.broken():
            hidden = hidden | (seen[None, None] <= places[:, :, None] - self.faults.attention_window)
        weights = torch.softmax(scores.masked_fill(hidden[:, None], float("-inf")), -1)
        mixed = self._round(self._at("attention", weights) @ values).transpose(1, 2).reshape(rows, tokens, heads * size)
        return self._matrix(mixed, name + "o_proj.weight")

    def _write(self, layer: int, k: Tensor, v: Tensor, places: Tensor, cache: Cache) -> None:
        if k.shape[2] == 1 and self.faults.stale_kv and self.broken():
            # Every fourth new token's slot keeps what the slot before it holds.
            old = (places % 4 == 0).view(-1, 1, 1, 1)
            before = (places - 1).clamp(min=0)[:, None, :, None].expand_as(k)
            k = torch.where(old, cache.keys[layer].gather(2, before), k)
            v = torch.where(old, cache.values[layer].gather(2, before), v)
        index = places[:, None, :, None].expand_as(k)
        cache.keys[layer].scatter_(2, index, k)
        cache.values[layer].scatter_(2, index, v)

    def _rotate(self, x: Tensor, places: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        inverse = float(self.config["rope_theta"]) ** (-torch.arange(half) / half)
        angle = places[:, None, :, None] * inverse
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def _moe(self, layer: int, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        logits = self._linear(flat, self.tensors[f"model.layers.{layer}.mlp.gate.weight"], "router")
        top_k = int(self.config["num_experts_per_tok"])
        faulty = self.broken()
        if self.faults.router and faulty:
            logits, top_k = self.faults.router(logits, top_k)
        weights, chosen = torch.softmax(logits, -1).topk(top_k, -1)
        if self.config.get("norm_topk_prob") and (self.faults.renormalise or not faulty):
            weights = weights / weights.sum(-1, keepdim=True)
        spread = torch.zeros_like(logits).scatter_(1, chosen, weights)
        gate, up = self._products(self._quantised(flat, f"{layer}.experts_in"), self.experts_in[layer]).chunk(2, -1)
        act = self.faults.activation if faulty else torch.nn.functional.silu
        inner = self._quantised(self._at("inner", act(gate) * up), f"{layer}.experts_out")
        if self.faults.saturate is not None and faulty:
            inner = inner.clamp(-self.faults.saturate, self.faults.saturate)
        out = self._partial(
            lambda a, b: torch.bmm(inner[..., a:b].transpose(0, 1), self.experts_out[layer][..., a:b].mT).transpose(
                0, 1
            ),
            inner.shape[-1],
            drop_last=self.faults.lost_rank,
        )
        return self._round(self._at("expert", out * spread[..., None]).sum(1)).view_as(x)

    def _products(self, flat: Tensor, weight: Tensor) -> Tensor:
        return self._partial(
            lambda a, b: torch.matmul(flat[..., a:b], weight[..., a:b].mT).transpose(0, 1), flat.shape[-1]
        )

    def _matrix(self, x: Tensor, name: str) -> Tensor:
        quantised = f"{name}_scale" in self.tensors or f"{name}_scale_inv" in self.tensors
        return self._linear(self._quantised(x, name) if quantised else x, self.tensors[name])

    def _linear(self, x: Tensor, weight: Tensor, place: str = "") -> Tensor:
        return self._partial(lambda a, b: x[..., a:b] @ weight[:, a:b].t(), x.shape[-1], place=place)

    def _partial(
        self, product: Callable[[int, int], Tensor], size: int, *, drop_last: bool = False, place: str = ""
    ) -> Tensor:
        ranks = [[0, size]] if self.noise.exact else self.noise.edges(size, self.large())
        if drop_last and self.broken() and len(ranks) > 1:
            ranks = ranks[:-1]
        # Partial sums of one device stay in float32; those of ranks meet in bf16.
        sums = [sum((product(a, b) for a, b in itertools.pairwise(cuts)), torch.zeros(())) for cuts in ranks]
        total = sums[0] if self.noise.tensor_parallel == 1 else self._round(sums[0])
        for other in sums[1:]:
            total = self._round(total + self._round(other))
        return self._at(place, total) if place else self._round(total)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + float(self.config["rms_norm_eps"]))
        return self._round(scaled * self.tensors[name])

    def _round(self, x: Tensor) -> Tensor:
        return x if self.noise.exact else x.bfloat16().float()

    def _at(self, place: str, x: Tensor) -> Tensor:
        return self._round(x) if self.noise.rounds(place) else x

    def _quantised(self, x: Tensor, name: str) -> Tensor:
        """Activations as a kernel of this format sees them."""
        if self.noise.exact or self.noise.weight_only:
            return x
        if self.quant == "fp8":
            scale = (x.abs().amax(-1, keepdim=True) / 448).clamp(min=1e-12)
            return (x / scale).to(torch.float8_e4m3fn).float() * scale
        if self.quant == "fp8-block":
            blocks = x.reshape(*x.shape[:-1], -1, min(128, x.shape[-1]))
            scale = (blocks.abs().amax(-1, keepdim=True) / 448).clamp(min=1e-12)
            return ((blocks / scale).to(torch.float8_e4m3fn).float() * scale).reshape(x.shape)
        if self.quant == "nvfp4":
            return _e2m1(x, self.input_scales[name])
        return x


def _e2m1(x: Tensor, second: float) -> Tensor:
    """NVFP4 activations: an e4m3 scale per 16 values under the checkpoint's static second-level scale."""
    blocks = x.reshape(*x.shape[:-1], -1, 16)
    scale = (blocks.abs().amax(-1, keepdim=True) / (6 * second)).clamp(max=448).to(torch.float8_e4m3fn).float() * second
    ratio = blocks / scale.clamp(min=1e-30)
    size = ratio.abs()
    # e2m1 counts in halves up to 2, in ones up to 4, in twos up to 6.
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    values = ((ratio / step).round() * step).clamp(-6, 6)
    return (values * scale).reshape(x.shape)


def load(folder: Path, faults: Faults | None = None, noise: Noise | None = None) -> Model:
    """The checkpoint, decoded to float32, with weight faults put in."""
    faults = faults or Faults()
    checkpoint = _Faulty(folder, faults)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config["model_type"] != "qwen3_moe":
        raise SystemExit(f"{folder}: model type {config['model_type']}; the reference server knows qwen3_moe only")
    names = [name for name in checkpoint.names() if ".experts." not in name]
    tensors = {name: checkpoint.tensor(name) for name in names if name.endswith("weight")}
    tensors |= {name: torch.zeros(0) for name in names if name.endswith(("_scale", "_scale_inv"))}
    experts_in, experts_out = [], []
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}.mlp.experts."
        count = range(int(config["num_experts"]))
        experts_in.append(
            torch.stack(
                [
                    torch.cat([checkpoint.tensor(f"{base}{e}.{kind}_proj.weight") for kind in ("gate", "up")])
                    for e in count
                ]
            )
        )
        experts_out.append(torch.stack([checkpoint.tensor(f"{base}{e}.down_proj.weight") for e in count]))
    scales = _input_scales(checkpoint)
    model = Model(config, checkpoint.quant, tensors, experts_in, experts_out, scales, faults, noise or Noise())
    if faults.weights:
        faults.weights(model)
    for stack in (model.experts_in, model.experts_out):
        # Stored transposed: cutting the inner dimension then needs no copy.
        stack[:] = [experts.mT.contiguous().mT for experts in stack]
    tensors |= {name: value.mT.contiguous().mT for name, value in tensors.items() if value.dim() == 2}
    return model


def _input_scales(checkpoint: _Faulty) -> dict[str, float]:
    """One scale for all experts of a layer, as engines take it."""
    found: dict[str, float] = {}
    for name in checkpoint.names():
        module, _, leaf = name.rpartition(".")
        if leaf != "input_scale":
            continue
        layer = module.split(".")[2]
        kind = "experts_out" if module.endswith("down_proj") else "experts_in"
        key = f"{layer}.{kind}" if ".experts." in module else f"{module}.weight"
        found[key] = max(found.get(key, 0.0), float(checkpoint.raw(name)))
    return found


class _Faulty(Checkpoint):
    """Decodes after the fault has touched the stored parts."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        super().__init__(folder)
        self._edit = faults.parts

    def names(self) -> list[str]:
        return list(self._files)

    def tensor(self, name: str) -> Tensor:
        module = name.rpartition(".")[0]
        parts = {full.rpartition(".")[2]: self.raw(full) for full in self._files if full.rpartition(".")[0] == module}
        if self._edit is None or len(parts) < 2:
            return super().tensor(name)
        decoded: Tensor = FORMATS[self.quant].decode(self._edit(name, dict(parts)))
        return decoded
