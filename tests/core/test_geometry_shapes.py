"""Shapes read from config.json keys, against published parameter counts."""

from __future__ import annotations

import pytest

from sweeper import catalogue
from sweeper.core.errors import UsageError
from sweeper.core.geometry import UnknownGeometry, geometry_from_config

SMALL = {
    "model_type": "qwen3_moe", "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 128, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "intermediate_size": 96,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name in catalogue.names() if catalogue.entry(name).get("published", {}).get("parameters")]
)
def test_every_shipped_shape_gives_the_published_number_of_weights(name: str) -> None:
    published = catalogue.entry(name)["published"]
    shape = catalogue.geometry(name)
    assert shape is not None
    assert shape.total_params() == pytest.approx(published["parameters"], rel=0.015)
    if "active" in published:
        assert shape.active_params() == pytest.approx(published["active"], rel=0.11)


def test_qwen35_397b_has_its_known_parts() -> None:
    shape = catalogue.geometry("Qwen/Qwen3.5-397B-A17B")
    assert shape is not None
    parts = shape.params()
    assert (shape.full_layers(), shape.linear_layers()) == (15, 45)
    assert parts["linear_attention"] == pytest.approx(5.31e9, rel=0.001)
    assert parts["attention"] == pytest.approx(1.57e9, rel=0.005)
    assert parts["routed"] == 60 * 512 * 3 * 4096 * 1024


def test_every_shape_says_where_it_is_from() -> None:
    for name in catalogue.names():
        entry = catalogue.entry(name)
        assert entry["source"]
        assert isinstance(entry["uncertain"], list)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nvidia/Qwen3.5-397B-A17B-NVFP4", "Qwen3.5-397B-A17B"),
        ("./models/Qwen3-32B-FP8/", "Qwen3-32B"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B"),
        ("openai/gpt-oss-120b", "GPT-OSS-120b"),
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-V3"),
    ],
)
def test_variants_are_found_by_name(model: str, name: str) -> None:
    assert catalogue.find(model) == name


@pytest.mark.parametrize("model", ["zai-org/GLM-4.5-Air", "org/other", "Qwen/Qwen2.5-32B", "./tiny-moe"])
def test_another_model_is_not_mistaken_for_a_variant(model: str) -> None:
    assert catalogue.find(model) is None
    assert catalogue.geometry(model) is None


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="Mixtral-8x7B"):
        catalogue.config("nothing")


def test_the_config_comes_with_the_format_asked_for() -> None:
    config = catalogue.config("Qwen3.5-397B-A17B", "nvfp4")
    assert config["quantization_config"]["quant_algo"] == "NVFP4"
    assert "quantization_config" not in catalogue.config("GPT-OSS-20b", "bf16")
    assert "quantization_config" not in catalogue.config("Qwen3.5-397B-A17B")


def test_a_variants_name_says_its_format() -> None:
    shape = catalogue.geometry("nvidia/Qwen3.5-397B-A17B-NVFP4")
    assert shape is not None
    assert shape.quantization == "nvfp4"
    assert shape.quantized_parts is not None
    assert "routed" in shape.quantized_parts
    assert not {"attention", "linear_attention", "shared", "head"} & set(shape.quantized_parts)


def test_gpt_oss_alternates_sliding_and_full_layers() -> None:
    shape = catalogue.geometry("openai/gpt-oss-20b")
    assert shape is not None
    assert (shape.full_layers(), shape.window, shape.quantization) == (12, 128, "mxfp4")


def test_deepseek_keeps_a_compressed_cache() -> None:
    shape = catalogue.geometry("deepseek-ai/DeepSeek-V3")
    assert shape is not None
    assert shape.kv_elements_per_token("full") == 576
    assert shape.moe_layers[:4] == (False, False, False, True)
    assert shape.params()["mtp"] == pytest.approx(11.5e9, rel=0.02)


def test_the_text_config_of_a_vision_model_counts() -> None:
    assert geometry_from_config({"vision_config": {}, "text_config": SMALL}) == geometry_from_config(SMALL)


@pytest.mark.parametrize(
    ("quant", "family", "block"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", (1, 16)),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "nvfp4-w4a16", (1, 16)),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", None),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block", (128, 128)),
        ({"quant_method": "mxfp4"}, "mxfp4", (1, 32)),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "int4", (1, 64)),
        ({"quant_method": "gptq", "bits": 8}, "int8", (1, 128)),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb-4bit", None),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {
            "num_bits": 4, "type": "float", "group_size": 16}, "input_activations": {"num_bits": 4}}}},
            "nvfp4", (1, 16)),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {
            "num_bits": 4, "type": "float", "group_size": 16}}}}, "nvfp4-w4a16", (1, 16)),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {
            "num_bits": 8, "type": "float"}}}}, "fp8-dynamic", None),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {
            "num_bits": 8, "type": "float", "block_structure": [128, 128]}}}}, "fp8-block", (128, 128)),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {
            "num_bits": 4, "type": "int", "group_size": 128}}}}, "int4", (1, 128)),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "mxfp8", (1, 32)),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_MXFP4_FP8"}, "mxfp4", (1, 32)),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, None, None),
        ({"quant_method": "modelopt_fp4"}, "nvfp4", None),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "nv_fp4_with_static_gs"}, None, None),
        ({"quant_method": "compressed-tensors"}, None, None),
        ({"quant_method": "quark"}, "quark", None),
    ],
)  # fmt: skip
def test_the_declared_format_is_named_in_one_way(quant: object, family: str, block: object) -> None:
    shape = geometry_from_config({**SMALL, "quantization_config": quant})
    assert (shape.quantization, shape.block) == (family, block)


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        (["lm_head", "model.layers.*.self_attn*"], {"attention", "head"}),
        (["re:.*shared_expert.*", "model.layers.0.linear_attn.in_proj"], {"shared"}),
        (["model.layers.3.mlp.gate"], set()),
    ],
)
def test_the_checkpoints_exceptions_stay_in_16_bits(ignore: list[str], kept: set[str]) -> None:
    quant = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ignore}
    shape = geometry_from_config({**SMALL, "quantization_config": quant})
    parts = {"routed", "shared", "dense_mlp", "attention", "linear_attention", "head"}
    assert set(shape.quantized_parts or ()) == parts - kept


@pytest.mark.parametrize(
    ("broken", "part"),
    [
        ({k: v for k, v in SMALL.items() if k != "num_hidden_layers"}, "num_hidden_layers"),
        ({**SMALL, "hidden_size": "big"}, "hidden_size"),
        ({**SMALL, "vocab_size": -1}, "vocab_size"),
        ({}, "num_hidden_layers"),
    ],
)
def test_a_config_without_a_shape_names_the_key(broken: dict[str, object], part: str) -> None:
    with pytest.raises(UnknownGeometry, match=part):
        geometry_from_config(broken)


def test_layers_without_experts_are_found() -> None:
    stepped = geometry_from_config({**SMALL, "decoder_sparse_step": 2, "mlp_only_layers": [3]})
    assert stepped.moe_layers == (False, True, False, False)


FP8_GROUP = {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float"}}
FP4_WEIGHTS = {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "input_activations": {"num_bits": 4}}


@pytest.mark.parametrize(
    ("groups", "family"),
    [
        ([FP8_GROUP, {**FP4_WEIGHTS, "targets": ["re:.*mlp.experts.*"]}], "nvfp4"),
        ([FP8_GROUP, {**FP4_WEIGHTS, "targets": ["re:.*mlp.*"]}], None),
        ([FP8_GROUP, FP8_GROUP], "fp8-dynamic"),
        ([{"weights": {"num_bits": 8, "type": "float", "group_size": 32}}], "mxfp8"),
        ([{"weights": {"num_bits": 4, "type": "int"}, "input_activations": {"num_bits": 8}}], "int4-w4a8"),
    ],
)
def test_groups_of_layers_with_formats_of_their_own(groups: list[dict[str, object]], family: str | None) -> None:
    listed = {f"group_{place}": group for place, group in enumerate(groups)}
    quant = {"quant_method": "compressed-tensors", "config_groups": listed}
    assert geometry_from_config({**SMALL, "quantization_config": quant}).quantization == family
