"""The shape of a model, read from the keys of a Hugging Face `config.json`: what memory, roofline and canary need.

Sizes are counts of elements unless a name says bytes. Biases, norms and vision towers are left out: together they are
below one percent of the models that this tool is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.core.declared import declared_format
from sweeper.core.errors import UsageError

PARTS = ("routed", "shared", "dense_mlp", "attention", "linear_attention", "router", "embedding", "head", "mtp")
"""What weights are sorted into. `routed`: experts chosen per token; `mtp`: the whole multi-token-prediction head."""


class UnknownGeometry(UsageError):
    """A config without the keys that a shape needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """One decoder. Per-layer lists have `layers` entries."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    max_positions: int | None = None
    layer_kinds: tuple[str, ...]
    """full, sliding or linear."""
    moe_layers: tuple[bool, ...]
    window: int | None = None
    """Tokens that a sliding layer keeps."""
    gated: bool = False
    """The query projection carries an output gate of the same size (Qwen3-Next, Qwen3.5)."""
    shared_kv: bool = False
    """One cached vector serves as key and value (DeepSeek-V4)."""
    q_rank: int | None = None
    out_rank: int | None = None
    """Width of a low-rank output projection, in `out_groups` groups (DeepSeek-V4)."""
    out_groups: int = 1
    kv_rank: int | None = None
    """Width of the compressed key/value (MLA); None: plain or grouped attention."""
    rope_dim: int = 0
    nope_dim: int = 0
    value_dim: int = 0
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    conv_kernel: int = 0
    dense_intermediate: int = 0
    experts: int = 0
    top_k: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    """All shared experts together."""
    mtp_layers: int = 0
    quantization: str | None = None
    """Family that the checkpoint declares; None: it declares none."""
    format_guessed: bool = False
    """`quantization` follows from the model's name: no config was read."""
    quantized_parts: tuple[str, ...] | None = None
    """Parts that the checkpoint stores in that family; None: not said."""
    known_parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(family, parts): what published checkpoints of other families store in them."""
    block: tuple[int, int] | None = None
    """Rows and columns of one scale, e.g. (128, 128) for block FP8."""
    stored_bytes: int | None = None
    """Bytes of the weight files; None: they are not on this disk."""

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def is_mla(self) -> bool:
        return self.kv_rank is not None

    def full_layers(self) -> int:
        return self.layer_kinds.count("full")

    def linear_layers(self) -> int:
        return self.layer_kinds.count("linear")

    def attention_params(self) -> int:
        """Weights of one full or sliding attention layer."""
        if self.kv_rank is not None:
            return self._mla_params()
        width = self.heads * self.head_dim
        query = self._through(self.q_rank, self.hidden, width * (2 if self.gated else 1))
        out = width * self.hidden
        if self.out_rank:
            out = width * self.out_rank + self.out_groups * self.out_rank * self.hidden
        return query + self.hidden * self.kv_elements_per_token("full") + out

    @staticmethod
    def _through(rank: int | None, inputs: int, outputs: int) -> int:
        """Weights of a projection, in two steps where it has a rank."""
        return inputs * rank + rank * outputs if rank else inputs * outputs

    def _mla_params(self) -> int:
        rank = self.kv_rank or 0
        query = self._through(self.q_rank, self.hidden, self.heads * (self.nope_dim + self.rope_dim))
        down = self.hidden * (rank + self.rope_dim)
        up = rank * self.heads * (self.nope_dim + self.value_dim)
        return query + down + up + self.heads * self.value_dim * self.hidden

    def linear_attention_params(self) -> int:
        """Weights of one gated-delta-net layer: q, k, v, z, beta and alpha, convolution, output."""
        keys = self.linear_key_heads * self.linear_key_dim
        values = self.linear_value_heads * self.linear_value_dim
        inputs = self.hidden * (2 * keys + 2 * values + 2 * self.linear_value_heads)
        return inputs + (2 * keys + values) * self.conv_kernel + values * self.hidden

    def expert_params(self) -> int:
        """Weights of one routed expert: gate, up and down."""
        return 3 * self.hidden * self.moe_intermediate

    def layer_params(self, index: int) -> dict[str, int]:
        """Weights of one layer by part; absent parts are left out."""
        kind = self.layer_kinds[index]
        out = {
            "linear_attention" if kind == "linear" else "attention": (
                self.linear_attention_params() if kind == "linear" else self.attention_params()
            )
        }
        if self.moe_layers[index]:
            out["routed"] = self.experts * self.expert_params()
            out["router"] = self.hidden * self.experts
            if self.shared_intermediate:
                out["shared"] = 3 * self.hidden * self.shared_intermediate
        else:
            out["dense_mlp"] = 3 * self.hidden * self.dense_intermediate
        return out

    def mtp_params(self) -> dict[str, int]:
        """Weights of the prediction head by part: per layer one full decoder layer and a (2h x h) projection."""
        if not self.mtp_layers:
            return {}
        kinds = [kind for kind in self.layer_kinds if kind != "linear"]
        one: dict[str, int] = {"attention": self.attention_params() if kinds else 0}
        if self.is_moe:
            one |= {"routed": self.experts * self.expert_params(), "router": self.hidden * self.experts}
            one |= {"shared": 3 * self.hidden * self.shared_intermediate}
        else:
            one["dense_mlp"] = 3 * self.hidden * self.dense_intermediate
        one["attention"] += 2 * self.hidden * self.hidden
        return {name: self.mtp_layers * count for name, count in one.items()}

    def params(self) -> dict[str, int]:
        """Weights of the whole model by part; `mtp` apart, since many checkpoints leave it out."""
        out = dict.fromkeys(PARTS, 0)
        for index in range(self.layers):
            for name, count in self.layer_params(index).items():
                out[name] += count
        out["embedding"] = self.vocab * self.hidden
        out["head"] = 0 if self.tied else self.vocab * self.hidden
        out["mtp"] = sum(self.mtp_params().values())
        return out

    def total_params(self, *, mtp: bool = False) -> int:
        return sum(count for name, count in self.params().items() if mtp or name != "mtp")

    def active_params(self) -> int:
        """Weights read for one token: everything but the experts not chosen and the embedding table."""
        out = self.params()
        routed = out["routed"] * self.top_k // self.experts if self.experts else 0
        head = out["head"] or out["embedding"]
        rest = sum(out[name] for name in ("shared", "dense_mlp", "attention", "linear_attention", "router"))
        return routed + rest + head

    def kv_elements_per_token(self, kind: str) -> int:
        """Elements that one layer of a kind stores for one token."""
        if kind == "linear":
            return 0
        if self.kv_rank is not None:
            return self.kv_rank + self.rope_dim
        return (1 if self.shared_kv else 2) * self.kv_heads * self.head_dim

    def state_elements(self) -> int:
        """Elements of one linear layer's recurrent state and convolution window, for one sequence."""
        state = self.linear_value_heads * self.linear_key_dim * self.linear_value_dim
        keys = self.linear_key_heads * self.linear_key_dim
        values = self.linear_value_heads * self.linear_value_dim
        return state + max(0, self.conv_kernel - 1) * (2 * keys + values)


def geometry_from_config(config: Mapping[str, Any]) -> Geometry:
    """From a `config.json`; a vision-language config's `text_config` counts. Raises UnknownGeometry naming the key."""
    text = _text(config)
    layers = _whole(text, "num_hidden_layers", "n_layer", "num_layers")
    hidden = _whole(text, "hidden_size", "n_embd", "dim")
    heads = _whole(text, "num_attention_heads", "n_head")
    experts = _whole(text, "num_experts", "n_routed_experts", "num_local_experts", default=0)
    moe_intermediate = _whole(text, "moe_intermediate_size", default=0)
    dense = _whole(text, "intermediate_size", "ffn_hidden_size", default=0)
    if experts and not moe_intermediate:
        # Mixtral, GPT-OSS and MiniMax-M2 have no dense layer: `intermediate_size` is the expert's.
        moe_intermediate = dense
    family, block = declared_format(config, text)
    return Geometry(
        model_type=str(text.get("model_type") or config.get("model_type") or "unknown"),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_whole(text, "num_key_value_heads", "num_kv_heads", default=heads),
        head_dim=_whole(text, "head_dim", default=hidden // heads),
        vocab=_whole(text, "vocab_size"),
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        max_positions=_whole(text, "max_position_embeddings", default=0) or None,
        layer_kinds=_kinds(text, layers),
        moe_layers=_moe_layers(text, layers, experts),
        window=_whole(text, "sliding_window", default=0) or None,
        gated=bool(text.get("attn_output_gate", str(text.get("model_type", "")).startswith(("qwen3_5", "qwen3_next")))),
        q_rank=_whole(text, "q_lora_rank", default=0) or None,
        shared_kv=str(text.get("model_type", "")).startswith("deepseek_v4"),
        out_rank=_whole(text, "o_lora_rank", default=0) or None,
        out_groups=_whole(text, "o_groups", default=1),
        kv_rank=_whole(text, "kv_lora_rank", default=0) or None,
        rope_dim=_whole(text, "qk_rope_head_dim", default=0),
        nope_dim=_whole(text, "qk_nope_head_dim", default=0),
        value_dim=_whole(text, "v_head_dim", default=0),
        linear_key_heads=_whole(text, "linear_num_key_heads", default=0),
        linear_value_heads=_whole(text, "linear_num_value_heads", default=0),
        linear_key_dim=_whole(text, "linear_key_head_dim", default=0),
        linear_value_dim=_whole(text, "linear_value_head_dim", default=0),
        conv_kernel=_whole(text, "linear_conv_kernel_dim", default=0),
        dense_intermediate=dense,
        experts=experts,
        top_k=_whole(text, "num_experts_per_tok", "moe_topk", "top_k", default=0),
        moe_intermediate=moe_intermediate if experts else 0,
        shared_intermediate=_shared(text, moe_intermediate) if experts else 0,
        mtp_layers=_whole(text, "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", default=0),
        quantization=family,
        quantized_parts=_quantized_parts(config, text, family, experts),
        block=block,
    )


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        inner = config.get(key)
        if isinstance(inner, Mapping):
            return _text(inner)
    return config


_REQUIRED = object()


def _whole(config: Mapping[str, Any], *names: str, default: Any = _REQUIRED) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int | float) and value >= 0 and value == int(value):
            return int(value)
        raise UnknownGeometry(f"config.json: {name} is {value!r}, not a whole number")
    if default is _REQUIRED:
        raise UnknownGeometry(f"config.json has no {names[0]}", hint="give the folder of a Hugging Face checkpoint")
    return int(default)


_KINDS = {
    "full_attention": "full",
    "attention": "full",
    "linear_attention": "linear",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
}


def _kinds(config: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    named = config.get("layer_types")
    if isinstance(named, list) and len(named) >= layers:
        return tuple(_KINDS.get(str(kind), "full") for kind in named[:layers])
    period = config.get("full_attention_interval")
    if isinstance(period, int) and period > 0 and config.get("linear_num_value_heads"):
        return tuple("full" if (index + 1) % period == 0 else "linear" for index in range(layers))
    return ("full",) * layers


def _moe_layers(config: Mapping[str, Any], layers: int, experts: int) -> tuple[bool, ...]:
    if not experts:
        return (False,) * layers
    first = _whole(config, "first_k_dense_replace", default=0)
    step = max(1, _whole(config, "decoder_sparse_step", "moe_layer_freq_step", default=1))
    dense = set(config.get("mlp_only_layers") or ())
    return tuple(index >= first and (index + 1) % step == 0 and index not in dense for index in range(layers))


def _shared(config: Mapping[str, Any], moe_intermediate: int) -> int:
    told = _whole(config, "shared_expert_intermediate_size", "shared_intermediate_size", default=0)
    return told or _whole(config, "n_shared_experts", "num_shared_experts", default=0) * moe_intermediate


_MODULES = {
    "routed": (".mlp.experts.0.down_proj", ".block_sparse_moe.experts.0.w2", ".mlp.experts"),
    "shared": (".mlp.shared_expert.down_proj", ".mlp.shared_experts.down_proj"),
    "dense_mlp": (".mlp.down_proj",),
    "attention": (".self_attn.o_proj",),
    "linear_attention": (".linear_attn.out_proj",),
    "head": ("lm_head",),
}


def _quantized_parts(
    config: Mapping[str, Any], text: Mapping[str, Any], family: str | None, experts: int
) -> tuple[str, ...] | None:
    """Parts not named by the checkpoint's list of exceptions; None where there is no such list."""
    quant = config.get("quantization_config") or text.get("quantization_config")
    if family is None or not isinstance(quant, Mapping):
        return None
    keys = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
    lists = [quant[key] for key in keys if isinstance(quant.get(key), list)]
    if not lists:
        return None
    skipped = [str(name).removeprefix("re:").strip(".*^$").replace("\\.", ".") for names in lists for name in names]
    parts = [
        part
        for part, modules in _MODULES.items()
        if not any(_covers(name, module) for name in skipped for module in modules)
    ]
    return tuple(part for part in parts if experts or part not in ("routed", "shared"))


_PATH = ("", "*", "model", "layers", "language_model")


def _covers(skipped: str, module: str) -> bool:
    """Whether an exception such as `model.layers.3.self_attn*` names a module kind such as `.self_attn.o_proj`."""
    if not skipped:
        return False
    tail = ".".join(part for part in skipped.split(".") if not part.isdigit() and part not in _PATH)
    bare = ".".join(part for part in module.strip(".").split(".") if not part.isdigit())
    return bool(tail) and (bare == tail or bare.startswith(tail + ".") or f".{tail}." in f".{bare}.")
