"""Which tensors a checkpoint of a given config holds: name on disk, shape, role. Read off the transformers class.

The class is built on the `meta` device (no memory), then transformers' own reverse conversion gives the names that
checkpoints on a model hub carry, one matrix per expert. So a new architecture needs no table here, only roles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a tensor does; decides its random scale and whether it is quantised."""

    EMBED = "embed"
    HEAD = "head"
    NORM = "norm"
    ROUTER = "router"
    ROUTER_BIAS = "router-bias"
    EXPERT_IN = "expert-in"
    EXPERT_OUT = "expert-out"
    MLP_IN = "mlp-in"
    MLP_OUT = "mlp-out"
    ATTENTION_IN = "attention-in"
    ATTENTION_OUT = "attention-out"
    LINEAR_ATTENTION = "linear-attention"
    GATE = "gate"
    DECAY = "decay"
    BIAS = "bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """`group` names the set of matrices that engines fuse into one and that therefore share scales."""

    name: str
    shape: tuple[int, ...]
    role: Role
    group: str

    @property
    def module(self) -> str:
        return self.name.removesuffix(".weight")


_RULES: tuple[tuple[str, Role], ...] = (
    (r"embed_tokens\.weight$", Role.EMBED),
    (r"(^|\.)lm_head\.weight$|shared_head\.head\.weight$", Role.HEAD),
    (r"e_score_correction_bias$", Role.ROUTER_BIAS),
    (r"(norm|norm\d|layernorm|enorm|hnorm|norm_embedding|norm_hidden)\.weight$", Role.NORM),
    (r"(bias|sinks|_bias)$", Role.BIAS),
    (r"(A_log|dt_bias)$", Role.DECAY),
    (r"linear_attn\.out_proj\.weight$", Role.ATTENTION_OUT),
    (r"linear_attn\.", Role.LINEAR_ATTENTION),
    (r"\.experts\.(\d+\.)?(gate_proj|up_proj|w1|w3)\.weight$|\.experts\.gate_up_proj$", Role.EXPERT_IN),
    (r"\.experts\.(\d+\.)?(down_proj|w2)\.weight$|\.experts\.down_proj$", Role.EXPERT_OUT),
    (r"shared_expert_gate\.weight$", Role.GATE),
    (r"(mlp|block_sparse_moe)\.(gate|router)\.weight$", Role.ROUTER),
    (r"(gate_proj|up_proj|gate_up_proj)\.weight$", Role.MLP_IN),
    (r"down_proj\.weight$", Role.MLP_OUT),
    (r"self_attn\.o_proj\.weight$", Role.ATTENTION_OUT),
    (r"self_attn\.\w+\.weight$|(^|\.)fc\.weight$|eh_proj\.weight$", Role.ATTENTION_IN),
)


def role_of(name: str) -> Role:
    """Raises ValueError for a tensor that no rule knows: a new architecture needs a rule, never a guess."""
    for pattern, role in _RULES:
        if re.search(pattern, name):
            return role
    raise ValueError(f"tensor {name}: no role known for it")


_FUSED = (
    (re.compile(r"\.(gate_proj|up_proj)\.weight$"), ".gate_up"),
    (re.compile(r"\.(w1|w3)\.weight$"), ".w13"),
    (re.compile(r"\.(q_proj|k_proj|v_proj)\.weight$"), ".qkv"),
    (re.compile(r"\.(q_a_proj|kv_a_proj_with_mqa)\.weight$"), ".qkv_a"),
)


def group_of(name: str) -> str:
    for pattern, replacement in _FUSED:
        if pattern.search(name):
            return pattern.sub(replacement, name)
    return name


def empty_model(config: dict[str, Any]) -> Any:
    """The transformers causal-LM class of `config` on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {key: value for key, value in config.items() if key not in ("model_type", "quantization_config")}
    typed = AutoConfig.for_model(config["model_type"], **settings)
    typed._experts_implementation = "eager"
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(typed, dtype=torch.float32)


def tensors(config: dict[str, Any]) -> list[TensorSpec]:
    """Every tensor of the checkpoint, the MTP layers' included, sorted by layer as engines read them."""
    from transformers.core_model_loading import revert_weight_conversion

    model = empty_model(config)
    shapes = {name: tuple(t.shape) for name, t in revert_weight_conversion(model, model.state_dict()).items()}
    shapes |= mtp_shapes(config, shapes)
    specs = [
        TensorSpec(name=name, shape=shape, role=role_of(name), group=group_of(name)) for name, shape in shapes.items()
    ]
    return sorted(specs, key=lambda spec: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", spec.name)])


def mtp_shapes(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the multi-token-prediction layer, which the transformers classes leave out.

    DeepSeek-V3, GLM-4 MoE: one more `model.layers.N` with its own norms and projection. Qwen3.5: a `mtp.` tree.
    """
    hidden = int(config["hidden_size"])
    if config.get("num_nextn_predict_layers"):
        index = int(config["num_hidden_layers"])
        extra = _last_layer(shapes, rf"model\.layers\.{index - 1}\.", f"model.layers.{index}.")
        head = f"model.layers.{index}."
        vocab = (int(config["vocab_size"]), hidden)
        return extra | {
            head + "enorm.weight": (hidden,),
            head + "hnorm.weight": (hidden,),
            head + "eh_proj.weight": (hidden, 2 * hidden),
            head + "shared_head.norm.weight": (hidden,),
            head + "shared_head.head.weight": vocab,
            head + "embed_tokens.weight": vocab,
        }
    if config.get("mtp_num_hidden_layers"):
        kinds = config.get("layer_types") or []
        full = max((i for i, kind in enumerate(kinds) if kind == "full_attention"), default=0)
        extra = _last_layer(shapes, rf"model\.layers\.{full}\.", "mtp.layers.0.")
        return extra | {
            "mtp.fc.weight": (hidden, 2 * hidden),
            "mtp.norm.weight": (hidden,),
            "mtp.pre_fc_norm_embedding.weight": (hidden,),
            "mtp.pre_fc_norm_hidden.weight": (hidden,),
        }
    return {}


def _last_layer(shapes: dict[str, tuple[int, ...]], pattern: str, prefix: str) -> dict[str, tuple[int, ...]]:
    return {re.sub(f"^{pattern}", prefix, name): shape for name, shape in shapes.items() if re.match(pattern, name)}
