"""The ways to break a model or a server. Each is what a kernel, a loader or a scheduler has got wrong before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.check_faults.model import Faults, Model, Noise

SCALED = ("nvfp4",)
"""Formats whose scales have an order in a matrix of this size: one 128 x 128 block or one scale a row has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`quants`: formats in which this can go wrong. `tp`: ranks to serve with. `strict`: NaN becomes HTTP 500."""

    name: str
    make: Callable[[], Faults]
    quants: tuple[str, ...] = ("bf16", "fp8", "nvfp4")
    tp: int = 1
    strict: bool = False

    def noise(self, seed: int) -> Noise:
        return Noise(seed=seed, tensor_parallel=self.tp)


def _swap(model: Model, layers: range) -> None:
    for layer in layers:
        for stack in (model.experts_in, model.experts_out):
            stack[layer] = stack[layer][torch.tensor([1, 0, *range(2, stack[layer].shape[0])])]


def _swapped() -> Faults:
    return Faults(weights=lambda model: _swap(model, range(len(model.experts_in))))


def _rotated_ranks(model: Model) -> None:
    """Expert parallelism with the ranks' blocks in the wrong order."""
    for stack in (model.experts_in, model.experts_out):
        for layer, experts in enumerate(stack):
            stack[layer] = experts.roll(experts.shape[0] // 2, 0)


def _zeroed(model: Model) -> None:
    model.experts_out[1][2] = 0.0


def _busiest_zeroed(model: Model) -> None:
    for experts in model.experts_out:
        experts[0] = 0.0


def _is_expert(name: str, kind: str = "") -> bool:
    return ".experts." in name and kind in name


def _scale_key(parts: Mapping[str, Tensor]) -> str:
    return "weight_scale_inv" if "weight_scale_inv" in parts else "weight_scale"


def _transposed(name: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    key = _scale_key(parts)
    if _is_expert(name):
        scale = parts[key].float()
        parts[key] = scale.t().reshape(scale.shape).to(parts[key].dtype)
    return parts


def _halved(name: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    key = _scale_key(parts)
    if _is_expert(name, "up_proj"):
        parts[key] = (parts[key].float() / 2).to(parts[key].dtype)
    return parts


def _double_up(model: Model) -> None:
    """bf16 has no stored scale: the factor goes into the product."""
    for experts in model.experts_in:
        experts[:, experts.shape[1] // 2 :] *= 2


def _groups(name: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    key = _scale_key(parts)
    if _is_expert(name) and parts[key].shape[-1] > 1:
        parts[key] = torch.stack([parts[key][:, 1::2], parts[key][:, 0::2]], 2).reshape(parts[key].shape)
    return parts


def _gate_and_up(model: Model) -> None:
    for layer, experts in enumerate(model.experts_in):
        gate, up = experts.chunk(2, 1)
        model.experts_in[layer] = torch.cat([up, gate], 1)


def _noisy_router(logits: Tensor, top_k: int) -> tuple[Tensor, int]:
    draw = torch.Generator().manual_seed(logits.shape[0])
    return logits + torch.randn(logits.shape, generator=draw), top_k


def _fewer(logits: Tensor, top_k: int) -> tuple[Tensor, int]:
    return logits, top_k - 1


def _more(logits: Tensor, top_k: int) -> tuple[Tensor, int]:
    return logits, logits.shape[-1]


def _nan(layer: int, added: Tensor) -> Tensor:
    return added * float("nan") if layer == 2 else added


def _some_nan(layer: int, added: Tensor) -> Tensor:
    """One value of one row: an uninitialised slot of a workspace."""
    if layer == 2:
        added = added.clone()
        added[-1, -1, 0] = float("nan")
    return added


def _dead_layer(layer: int, added: Tensor) -> Tensor:
    return added * 0.0 if layer == 3 else added


CASES: tuple[Case, ...] = (
    Case(name="experts 0 and 1 swapped in every layer", make=_swapped),
    Case(name="expert blocks of two EP ranks exchanged", make=lambda: Faults(weights=_rotated_ranks)),
    Case(name="one expert of one layer zeroed", make=lambda: Faults(weights=_zeroed)),
    Case(name="expert 0 zeroed in every layer", make=lambda: Faults(weights=_busiest_zeroed)),
    Case(name="scales of the experts transposed", make=lambda: Faults(parts=_transposed), quants=SCALED),
    Case(name="scale off by 2, stored", make=lambda: Faults(parts=_halved), quants=("fp8", "fp8-block", "nvfp4")),
    Case(name="scale off by 2, applied twice", make=lambda: Faults(weights=_double_up)),
    Case(name="scale groups exchanged in pairs", make=lambda: Faults(parts=_groups), quants=("nvfp4",)),
    Case(name="gate and up exchanged", make=lambda: Faults(weights=_gate_and_up)),
    Case(name="router noise of deviation 1", make=lambda: Faults(router=_noisy_router)),
    Case(name="top-k one too small", make=lambda: Faults(router=_fewer)),
    Case(name="every expert chosen", make=lambda: Faults(router=_more)),
    Case(name="router weights not renormalised", make=lambda: Faults(renormalise=False)),
    Case(
        name="gelu in place of silu", make=lambda: Faults(activation=torch.nn.functional.gelu), quants=("bf16", "fp8")
    ),
    Case(name="NaN in one layer, written as JSON NaN", make=lambda: Faults(output=_nan)),
    Case(name="NaN in one layer, answered with HTTP 500", make=lambda: Faults(output=_nan), strict=True),
    Case(name="above batch 4: NaN in one value of one row", make=lambda: Faults(output=_some_nan, min_batch=4)),
    Case(name="experts of the last layer missing", make=lambda: Faults(output=_dead_layer)),
    Case(name="every fourth KV slot stale in decode", make=lambda: Faults(stale_kv=True)),
    Case(name="decode positions off by one", make=lambda: Faults(position_offset=1)),
    Case(name="only the last 16 tokens attended to", make=lambda: Faults(attention_window=16), quants=("bf16",)),
    Case(name="TP=2: the sum of the second rank lost", make=lambda: Faults(lost_rank=True), tp=2),
    Case(name="above batch 4: experts exchanged", make=lambda: Faults(router=_rolled, min_batch=4)),
    Case(name="above batch 4: top-k one too small", make=lambda: Faults(router=_fewer, min_batch=4)),
    Case(name="logits scaled by 0.8", make=lambda: Faults(logit_scale=0.8)),
    Case(name="activations saturate at 0.5", make=lambda: Faults(saturate=0.5)),
    Case(name='4 % of generations collapse to "!!!!"', make=lambda: Faults(collapse_rate=0.04)),
)


def _rolled(logits: Tensor, top_k: int) -> tuple[Tensor, int]:
    return logits.roll(1, -1), top_k
