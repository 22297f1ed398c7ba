"""Cut a model's config.json down to a canary: what decides kernel choice stays, depth and vocabulary go.

Kept: hidden and expert sizes, number of experts (unless asked), top-k, shared experts, head counts and sizes, latent
sizes, activation, rotary settings, expert grouping. Cut: layers, vocabulary, context length, vision parts.
"""

from __future__ import annotations

from typing import Any

from sweeper.core.errors import UsageError

ARCHITECTURES: dict[str, str] = {
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "minimax_m2": "MiniMaxM2ForCausalLM",
}
"""Text model types that the builder knows, and the class engines load them with."""

_EXPERT_KEYS = ("num_experts", "n_routed_experts", "num_local_experts")
_MTP_KEYS = (
    "num_nextn_predict_layers",
    "mtp_num_hidden_layers",
    "num_mtp_modules",
    "use_mtp",
    "mtp_transformer_layers",
)
_DROPPED = (
    "quantization_config",
    "compression_config",
    "auto_map",
    "transformers_version",
    "_name_or_path",
    "torch_dtype",
)
MAX_POSITIONS = 8192

TINY: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
"""The smallest useful one: 2.6 million parameters, divisible for TP=2, PP=2 and EP=2."""


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The text part of a multi-modal config, or the config itself. Raises UsageError for unknown model types."""
    inner = config.get("text_config")
    text = dict(inner) if isinstance(inner, dict) else dict(config)
    kind = str(text.get("model_type") or config.get("model_type"))
    text["model_type"] = {"qwen3_5_moe": "qwen3_5_moe_text"}.get(kind, kind)
    if text["model_type"] not in ARCHITECTURES:
        raise UsageError(
            f"model type '{kind}': no builder for it", hint="Known types: " + ", ".join(sorted(ARCHITECTURES))
        )
    return text


def cut(
    config: dict[str, Any],
    *,
    layers: int | None = None,
    experts: int | None = None,
    vocab: int | None = None,
    mtp: bool = False,
) -> dict[str, Any]:
    """The canary's config. `layers` defaults to the fewest that hold every kind of layer.

    Raises UsageError for a cut that the model cannot have (fewer experts than top-k, an MTP head it never had).
    """
    text = {key: value for key, value in text_config(config).items() if key not in _DROPPED}
    had_mtp = _mtp_layers(text)
    depth = layers or _least_layers(text)
    text = _cut_layers(text, depth)
    if experts is not None:
        _cut_experts(text, experts)
    for key in _MTP_KEYS:
        text.pop(key, None)
    text |= _mtp_settings(text, had_mtp) if mtp else {}
    text["vocab_size"] = vocab or 2048
    text["tie_word_embeddings"] = False
    text |= {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0, "dtype": "bfloat16"}
    if not _scaled_rope(text):
        text["max_position_embeddings"] = min(int(text.get("max_position_embeddings") or 4096), MAX_POSITIONS)
    text["architectures"] = [ARCHITECTURES[text["model_type"]]]
    return portable(text)


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """The same config with the keys that readers of other ages look for.

    transformers 5 writes `num_local_experts` and `rope_parameters`; earlier ones, and engines on them, read
    `num_experts` and `rope_theta`, and fall back to the defaults of a big model without a word.
    """
    both = dict(config)
    if str(both["model_type"]).startswith("qwen") and "num_local_experts" in both:
        both["num_experts"] = both["num_local_experts"]
    rope = both.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        both.setdefault("rope_theta", rope["rope_theta"])
    return both


def expert_count(config: dict[str, Any]) -> int:
    return next((int(config[key]) for key in _EXPERT_KEYS if config.get(key)), 0)


def _least_layers(text: dict[str, Any]) -> int:
    """Two, or enough for a dense first layer and one MoE layer."""
    return max(2, min(1, int(text.get("first_k_dense_replace") or 0)) + 1)


def _cut_layers(text: dict[str, Any], depth: int) -> dict[str, Any]:
    if depth < 1:
        raise UsageError(f"--layers {depth}: at least 1")
    text = {**text, "num_hidden_layers": depth}
    if text.get("first_k_dense_replace"):
        text["first_k_dense_replace"] = min(int(text["first_k_dense_replace"]), 1 if depth > 1 else 0)
    if text["model_type"] in ("qwen3_5_moe_text", "gpt_oss"):
        text["layer_types"] = _layer_types(text, depth)
    elif text.get("layer_types"):
        text["layer_types"] = list(text["layer_types"])[:depth]
    for key in ("mlp_only_layers", "attn_type_list", "mlp_layer_types"):
        if text.get(key):
            text[key] = [v for v in text[key] if not isinstance(v, int) or v < depth][:depth]
    if text["model_type"] == "minimax_m2" and text.get("attn_type_list"):
        text["attn_type_list"] = [1] * depth
    return text


def _layer_types(text: dict[str, Any], depth: int) -> list[str]:
    """Both kinds of a hybrid model in a short stack: the model's own order if it holds both, else alternating."""
    kinds = ("linear_attention", "full_attention")
    if text["model_type"] == "gpt_oss":
        kinds = ("sliding_attention", "full_attention")
    own = list(text.get("layer_types") or [])
    if not own and text["model_type"] == "qwen3_5_moe_text":
        every = int(text.get("full_attention_interval") or 4)
        own = [kinds[(i + 1) % every == 0] for i in range(depth)]
    if len(set(own[:depth])) == 2:
        return own[:depth]
    return [kinds[i % 2] for i in range(depth)]


def _cut_experts(text: dict[str, Any], experts: int) -> None:
    key = next((key for key in _EXPERT_KEYS if text.get(key)), None)
    if key is None:
        raise UsageError("--experts: this config names no number of experts")
    top_k = int(text.get("num_experts_per_tok") or text.get("experts_per_token") or 1)
    groups = int(text.get("n_group") or 1)
    if experts < top_k or experts > int(text[key]) or experts % groups:
        wanted = f"between {top_k} (top-k) and {text[key]}" + (f", divisible by {groups} groups" if groups > 1 else "")
        raise UsageError(f"--experts {experts}: must be {wanted}")
    per_group = experts // groups * int(text.get("topk_group") or groups)
    if groups > 1 and per_group < top_k:
        raise UsageError(f"--experts {experts}: the chosen groups would hold {per_group} experts for top-{top_k}")
    text[key] = experts


def _mtp_layers(text: dict[str, Any]) -> str | None:
    if text["model_type"] in ("deepseek_v3", "glm4_moe"):
        return "num_nextn_predict_layers"
    return "mtp_num_hidden_layers" if text["model_type"] == "qwen3_5_moe_text" else None


def _mtp_settings(text: dict[str, Any], key: str | None) -> dict[str, Any]:
    if key is None:
        raise UsageError(f"--mtp: {text['model_type']} checkpoints have no MTP head that engines load")
    return {key: 1}


def _scaled_rope(text: dict[str, Any]) -> bool:
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    return bool(isinstance(rope, dict) and (rope.get("factor") or rope.get("type") == "yarn"))
