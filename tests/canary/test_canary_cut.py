"""Cutting a config keeps what decides kernel choice; every refusal says what would be allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.canary import cut, source
from sweeper.cli.main import main
from sweeper.core.errors import BadFile, UsageError

KEPT = (
    "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "moe_intermediate_size", "num_experts",
    "n_routed_experts", "num_local_experts", "num_experts_per_tok", "n_shared_experts", "n_group", "topk_group",
    "kv_lora_rank", "q_lora_rank", "hidden_act", "shared_expert_intermediate_size", "intermediate_size",
    "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in source.names() if name not in ("tiny", "speaking")])
def test_a_catalogue_geometry_keeps_everything_but_depth_and_vocabulary(name: str) -> None:
    config, weights = source.resolve(name)
    text = cut.text_config(config)
    small = cut.cut(config)
    assert weights is None
    assert {key: small[key] for key in KEPT if key in text} == {key: text[key] for key in KEPT if key in text}
    assert small["num_hidden_layers"] == 2
    assert small["vocab_size"] == 2048
    assert "quantization_config" not in small
    assert small["architectures"] == [cut.ARCHITECTURES[small["model_type"]]]


def test_a_hybrid_model_keeps_both_kinds_of_layer() -> None:
    small = cut.cut(source.resolve("Qwen3.5-397B-A17B")[0], layers=2)
    assert small["layer_types"] == ["linear_attention", "full_attention"]
    assert small["num_experts"] == 512
    small = cut.cut(source.resolve("GPT-OSS-20b")[0])
    assert set(small["layer_types"]) == {"sliding_attention", "full_attention"}


def test_a_dense_first_layer_leaves_room_for_an_moe_layer() -> None:
    small = cut.cut(source.resolve("DeepSeek-V3")[0])
    assert (small["first_k_dense_replace"], small["num_hidden_layers"]) == (1, 2)


@pytest.mark.parametrize(
    ("name", "experts", "wanted"),
    [("DeepSeek-V3", 7, "between 8"), ("DeepSeek-V3", 12, "divisible by 8"), ("Qwen3-30B-A3B", 4096, "and 128")],
)
def test_impossible_expert_counts_are_refused_with_the_possible_ones(name: str, experts: int, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        cut.cut(source.resolve(name)[0], experts=experts)


def test_an_mtp_head_is_refused_where_checkpoints_have_none() -> None:
    assert cut.cut(source.resolve("DeepSeek-V3")[0], mtp=True)["num_nextn_predict_layers"] == 1
    assert cut.cut(source.resolve("Qwen3.5-397B-A17B")[0], mtp=True)["mtp_num_hidden_layers"] == 1
    with pytest.raises(UsageError, match="no MTP head"):
        cut.cut(dict(cut.TINY), mtp=True)


def test_an_unknown_model_type_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no builder") as caught:
        cut.cut({"model_type": "bert"})
    assert "qwen3_moe" in str(caught.value.hint)


def test_like_takes_a_config_file_a_folder_and_refuses_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(cut.TINY))
    assert source.resolve(str(path)) == (cut.TINY, None)
    assert source.resolve(str(tmp_path)) == (cut.TINY, None)
    path.write_text("{")
    with pytest.raises(BadFile, match="not JSON"):
        source.resolve(str(path))
    with pytest.raises(UsageError, match="no such file") as caught:
        source.resolve("Qwen3.5-397B-A71B")
    assert "Qwen3.5-397B-A17B" in str(caught.value.hint)


def test_the_command_lists_names_and_refuses_a_wrong_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["canary", "list", "--json"]) == 0
    assert "tiny" in json.loads(capsys.readouterr().out)
