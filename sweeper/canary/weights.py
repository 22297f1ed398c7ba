"""Where the numbers of a canary come from: drawn from a seed, or taken from an existing small checkpoint.

Drawn weights are scaled so that errors show. Every branch adds about as much to the residual stream as the token
embedding does; router logits have a deviation near 3.5, so that an expert at the edge of the top-k, which rounding may
exchange for another, carries little; and the output head knows a chain: after token t comes
`successor(t)`. Along that chain the right token has most of the probability, so the mean NLL lies far below
ln(vocabulary) and a greedy continuation does not loop; the other logits vary with everything the layers compute.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeper.canary.schema import Role, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

SPECIAL_IDS = 4
CHAIN_LOGIT = 10.0
OTHER_LOGIT = 2.5
RESIDUAL_VARIANCE = 1.4
"""Of what reaches the last norm, measured: 1 is the embedding's, the rest all branches'."""
CLIP = 6.0
"""Draws beyond this many deviations are clipped, so the largest weight of a group is known before it is drawn."""

_GAIN = {
    Role.EMBED: 1.0,
    Role.ROUTER: 2.0,
    Role.GATE: 1.0,
    Role.ATTENTION_IN: 1.0,
    Role.LINEAR_ATTENTION: 1.0,
    Role.EXPERT_IN: 1.4,
    Role.MLP_IN: 1.4,
}
_BRANCH = {Role.EXPERT_OUT: 0.6, Role.MLP_OUT: 0.4, Role.ATTENTION_OUT: 0.5}
"""Gain of a projection back into the residual stream, before division by sqrt(layers)."""


class Weights(Protocol):
    """Source of float tensors by spec."""

    def tensor(self, spec: TensorSpec) -> Tensor: ...

    def amax(self, group: Iterable[TensorSpec]) -> float:
        """Largest absolute value over matrices that share a scale."""
        ...


def successors(vocab_size: int, seed: int) -> list[int]:
    """For every id the next one of the chain: one cycle through all ids but the specials, which map to themselves."""
    import numpy as np

    order = np.random.default_rng([seed, 77]).permutation(np.arange(SPECIAL_IDS, vocab_size))
    following = list(range(vocab_size))
    for here, there in zip(order, np.roll(order, -1), strict=True):
        following[int(here)] = int(there)
    return following


class RandomWeights:
    """Deterministic from (seed, tensor name): the order of calls does not matter."""

    def __init__(self, config: dict[str, Any], seed: int) -> None:
        self._config, self._seed = config, seed
        self._layers = int(config["num_hidden_layers"])
        self._zero_centred = str(config["model_type"]).startswith(("qwen3_5", "qwen3_next"))

    def tensor(self, spec: TensorSpec) -> Tensor:
        """float32. Raises KeyError for a role without a rule."""
        import torch

        if spec.role is Role.NORM:
            offset = 0.0 if self._zero_centred and "linear_attn.norm" not in spec.name else 1.0
            if spec.name.endswith(("q_norm.weight", "k_norm.weight")):
                # Sharper attention: uniform averages over a long context would hide errors in the KV cache.
                offset += 0.5
            return self._normal(spec.name, spec.shape, 0.1) + offset
        if spec.role is Role.DECAY:
            return torch.log(torch.rand(spec.shape, generator=self._generator(spec.name)) * 0.9 + 0.1)
        if spec.role is Role.HEAD:
            return self._head(spec)
        return self._normal(spec.name, spec.shape, self.deviation(spec))

    def amax(self, group: Iterable[TensorSpec]) -> float:
        return CLIP * max(self.deviation(spec) for spec in group)

    def deviation(self, spec: TensorSpec) -> float:
        """Standard deviation of one tensor's entries."""
        if spec.role in (Role.BIAS, Role.ROUTER_BIAS):
            return 0.02 if spec.role is Role.ROUTER_BIAS else 0.1
        if spec.role is Role.EMBED:
            return 1.0
        if spec.role is Role.HEAD:
            chance = CHAIN_LOGIT**2 * RESIDUAL_VARIANCE / spec.shape[-1]
            return math.sqrt(max(1.0, OTHER_LOGIT**2 - chance) / spec.shape[-1])
        fan_in = math.prod(spec.shape[1:]) if len(spec.shape) < 3 or spec.shape[1] == 1 else spec.shape[1]
        gain = _GAIN.get(spec.role) or _BRANCH[spec.role] / math.sqrt(self._layers)
        if spec.role is Role.EXPERT_OUT:
            gain /= float(self._config.get("routed_scaling_factor") or 1.0)
            # GPT-OSS multiplies by (up + 1), which carries 1.4 times as much as `up` and does not average out.
            gain /= 1.4 if self._config["model_type"] == "gpt_oss" else 1.0
        return gain / math.sqrt(fan_in)

    def _head(self, spec: TensorSpec) -> Tensor:
        import torch

        vocab, hidden = spec.shape
        weight = self._normal(spec.name, spec.shape, self.deviation(spec))
        embed = self._normal("model.embed_tokens.weight", spec.shape, 1.0)
        following = torch.tensor(successors(vocab, self._seed))
        # The last norm divides by the residual's size, which the branches raise.
        weight[following] += embed * (CHAIN_LOGIT * math.sqrt(RESIDUAL_VARIANCE) / hidden)
        weight[:SPECIAL_IDS] = 0.0
        return weight

    def _normal(self, name: str, shape: tuple[int, ...], deviation: float) -> Tensor:
        import torch

        drawn = torch.empty(shape).normal_(0.0, deviation, generator=self._generator(name))
        return drawn.clamp_(-CLIP * deviation, CLIP * deviation)

    def _generator(self, name: str) -> Any:
        import torch

        return torch.Generator().manual_seed((self._seed << 32) ^ zlib.crc32(name.encode()))


class StoredWeights:
    """The tensors of a bf16 checkpoint folder, for changing the format of a model that is already trained."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            handle = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(handle.keys(), handle)

    def tensor(self, spec: TensorSpec) -> Tensor:
        tensor: Tensor = self._files[spec.name].get_tensor(spec.name)
        return tensor.float()

    def amax(self, group: Iterable[TensorSpec]) -> float:
        return max(float(self.tensor(spec).abs().max()) for spec in group)
