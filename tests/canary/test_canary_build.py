"""Built checkpoints: deterministic, readable by transformers, quantised as compressed-tensors would, informative.

Needs torch and transformers 5 (the `canary` extra); skipped without.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch") and pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers", minversion="5.0")

from sweeper.canary import calibrate, cut, golden, reference, schema  # noqa: E402
from sweeper.canary.build import Recipe, write_checkpoint  # noqa: E402
from sweeper.canary.formats import FORMATS, INPUT_AMAX, NvFp4, pack_e2m1, unpack_e2m1  # noqa: E402
from sweeper.canary.make import Order, make  # noqa: E402
from sweeper.canary.record import FULL, chain_prompts, text_prompts  # noqa: E402
from sweeper.canary.speaking import speaking_dir  # noqa: E402
from sweeper.core.errors import EnvironmentNotReady, UsageError  # noqa: E402
from sweeper.core.numerics_routing import LEAST  # noqa: E402

BASE = {
    "vocab_size": 32000, "hidden_size": 128, "num_hidden_layers": 40, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
    "intermediate_size": 128, "max_position_embeddings": 4096,
}  # fmt: skip
DEEP = {"n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5,
        "norm_topk_prob": True, "num_nextn_predict_layers": 1}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {**BASE, "num_experts": 8, "norm_topk_prob": True},
    "qwen3_5_moe_text": {
        **BASE, "num_experts": 8, "shared_expert_intermediate_size": 128, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 64, "linear_value_head_dim": 64,
        "mtp_num_hidden_layers": 1,
    },
    "deepseek_v3": {
        **{k: v for k, v in BASE.items() if k != "head_dim"}, **DEEP, "num_key_value_heads": 4, "n_group": 2,
        "topk_group": 1, "q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64,
        "v_head_dim": 64,
    },
    "glm4_moe": {**BASE, **DEEP, "n_group": 1, "topk_group": 1, "attention_bias": True, "use_qk_norm": True},
    "gpt_oss": {**BASE, "num_local_experts": 8, "sliding_window": 64},
    "mixtral": {**BASE, "num_local_experts": 8},
    "minimax_m2": {**BASE, "num_local_experts": 8, "rotary_dim": 32},
}  # fmt: skip


def config_file(folder: Path, kind: str) -> str:
    path = folder / f"{kind}.json"
    path.write_text(json.dumps({"model_type": kind, **FAMILIES[kind]}))
    return str(path)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("quant", ["bf16", "nvfp4"])
def test_every_family_builds_and_its_chain_is_predictable(tmp_path: Path, kind: str, quant: str) -> None:
    quant = "mxfp4" if kind == "gpt_oss" and quant != "bf16" else quant
    made = make(Order(like=config_file(tmp_path, kind), out=tmp_path / "out", quant=quant, vocab=1024))
    assert made.mean_nll is not None
    assert made.uniform_nll is not None
    assert made.mean_nll < 0.75 * made.uniform_nll
    file = golden.load(tmp_path / "out" / golden.FILE_NAME)
    assert file.quant == quant
    assert sum(bool(case.greedy_ids) for case in file.cases) == FULL.greedy


@pytest.mark.parametrize("kind", FAMILIES)
def test_transformers_loads_the_folder_and_agrees_with_the_reference(tmp_path: Path, kind: str) -> None:
    make(Order(like=config_file(tmp_path, kind), out=tmp_path / "out", vocab=1024, golden=False))
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = torch.tensor([chain_prompts(1024, 0)[0]])
    with torch.no_grad():
        ours = reference.load(tmp_path / "out")(input_ids=ids, use_cache=False).logits
        theirs = loaded(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    config = cut.cut(cut.TINY)
    files = []
    for number, seed in enumerate((3, 3, 4)):
        write_checkpoint(Recipe(config=config, quant="nvfp4", seed=seed), tmp_path / str(number))
        files.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("quant", FORMATS)
def test_a_format_keeps_a_matrix_within_its_resolution(quant: str) -> None:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(1)) * 0.02
    fmt = FORMATS[quant]
    back = fmt.decode(fmt.encode(weight, float(weight.abs().max())))
    error = float((back - weight).norm() / weight.norm())
    bound = {"bf16": 0.003, "fp8": 0.03, "fp8-block": 0.03, "int4": 0.13, "mxfp4": 0.17}.get(quant, 0.11)
    assert error < bound


@pytest.mark.parametrize("quant", FORMATS)
def test_encoding_a_decoded_matrix_changes_nothing(quant: str) -> None:
    if quant == "int4":
        pytest.skip("the largest code of a group moves its scale")
    weight = torch.randn(128, 256, generator=torch.Generator().manual_seed(2)) * 0.02
    fmt, amax = FORMATS[quant], float(weight.abs().max())
    once = fmt.decode(fmt.encode(weight, amax))
    twice = fmt.decode(fmt.encode(once, amax))
    assert float((once != twice).float().mean()) < 0.02


def test_e2m1_rounds_to_nearest_and_ties_to_even() -> None:
    values = torch.tensor([0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 2.51, 3.5, 5.0, 5.01, -0.75, -7.0, 0.0, 1.0, 6.0, -3.0])
    expected = [0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 6.0, -1.0, -6.0, 0.0, 1.0, 6.0, -3.0]
    assert unpack_e2m1(pack_e2m1(values[None])).tolist() == [expected]


def test_nvfp4_agrees_with_compressed_tensors() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.nvfp4.helpers")
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(3)) * 0.02
    parts = NvFp4().encode(weight, float(weight.abs().max()))
    divisor = parts["weight_scale"].float() * parts["weight_scale_2"]
    values = unpack_e2m1(parts["weight"])
    assert torch.equal(helpers.pack_fp4_to_uint8(values), parts["weight"])
    assert torch.equal(helpers.unpack_fp4_from_uint8(parts["weight"], 64, 128, dtype=torch.float32), values)
    scaled = (weight.view(64, -1, 16) / divisor[..., None]).view(64, 128)
    assert float((scaled - values).abs().max()) <= 1.0


def test_int4_agrees_with_compressed_tensors() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(4)) * 0.02
    parts = FORMATS["int4"].encode(weight, 0.0)
    codes = helpers.unpack_from_int32(parts["weight_packed"], 4, torch.Size((64, 256)))
    back = (codes.view(64, -1, 128).float() * parts["weight_scale"].float()[..., None]).view(64, 256)
    assert torch.equal(back, FORMATS["int4"].decode(parts))


def test_the_speaking_canary_changes_format_with_its_own_weights(tmp_path: Path) -> None:
    made = make(Order(like="speaking", out=tmp_path / "out", quant="nvfp4", keep_weights=True, golden=False))
    assert made.weight_bytes < 0.5 * (speaking_dir() / "model.safetensors").stat().st_size
    text = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())
    assert text["quantization"]["quant_algo"] == "NVFP4"
    with pytest.raises(UsageError, match="--keep-weights"):
        make(Order(like="tiny", out=tmp_path / "no", keep_weights=True))


def input_scales(folder: Path) -> dict[str, float]:
    """Largest activation that each stored input scale covers."""
    with safetensors.safe_open(folder / "model.safetensors", framework="pt") as file:
        return {
            calibrate.shared_name(f"{name.removesuffix(calibrate.SUFFIX)}.weight"): 6
            * 448
            * float(file.get_tensor(name))
            for name in file.keys()  # noqa: SIM118  (it is no dictionary)
            if name.endswith(calibrate.SUFFIX)
        }


def test_the_input_scales_of_trained_weights_hold_what_the_weights_meet(tmp_path: Path) -> None:
    """Its experts meet activations of 760: under a scale for 64 a healthy kernel was 16 times further off."""
    folder = tmp_path / "out"
    make(Order(like="speaking", out=folder, quant="nvfp4", keep_weights=True, golden=False))
    largest = calibrate.largest_inputs(reference.load(folder), [ids for _, _, ids in text_prompts(folder)])
    scales = input_scales(folder)
    assert max(largest[name] for name in scales) > INPUT_AMAX
    for name, covered in scales.items():
        assert covered == pytest.approx(calibrate.MARGIN * largest[name], rel=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "gpt_oss"])
def test_drawn_weights_meet_activations_that_their_fixed_input_scale_holds(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "out"
    made = make(Order(like=config_file(tmp_path, kind), out=folder, quant="nvfp4", golden=False))
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    largest = calibrate.largest_inputs(reference.load(folder), chain_prompts(vocab, 0))
    scales = input_scales(folder)
    assert made.golden is None
    assert scales
    for name, covered in scales.items():
        assert covered == pytest.approx(INPUT_AMAX)
        assert largest.get(name, 0.0) < covered


def test_a_model_of_ones_own_keeps_its_tokenizer(tmp_path: Path) -> None:
    """Its golden prompts must be text to it, and its vocabulary is its own."""
    own = tmp_path / "own"
    shutil.copytree(speaking_dir(), own, ignore=shutil.ignore_patterns("*.py", "golden*", "sweeper_canary.json"))
    state = json.loads((own / "tokenizer.json").read_text())
    state["added_tokens"].append(
        {**state["added_tokens"][0], "id": len(state["model"]["vocab"]), "content": "<|mine|>"}
    )
    (own / "tokenizer.json").write_text(json.dumps(state))
    make(Order(like=str(own), out=tmp_path / "out", quant="fp8", keep_weights=True, golden=False))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (own / "tokenizer.json").read_bytes()
    assert (tmp_path / "out" / "chat_template.jinja").is_file()


def test_an_mtp_layer_is_written_under_the_names_engines_read(tmp_path: Path) -> None:
    for kind, name in (("deepseek_v3", "model.layers.2.eh_proj.weight"), ("qwen3_5_moe_text", "mtp.fc.weight")):
        names = {spec.name for spec in schema.tensors(cut.cut({"model_type": kind, **FAMILIES[kind]}, mtp=True))}
        assert name in names
        without = {spec.name for spec in schema.tensors(cut.cut({"model_type": kind, **FAMILIES[kind]}))}
        assert name not in without


def test_refusals_leave_no_folder_half_written(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        make(Order(like="tiny", out=tmp_path / "used"))
    with pytest.raises(UsageError, match="at least 1024"):
        make(Order(like="tiny", out=tmp_path / "small", vocab=100))
    with pytest.raises(UsageError, match="mxfp4 and bf16 only"):
        make(Order(like=config_file(tmp_path, "gpt_oss"), out=tmp_path / "oss", quant="nvfp4"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "wide"),
        ("num_key_value_heads", []),
        ("head_dim", -1),
        ("num_experts_per_tok", 99),
        ("hidden_act", 3),
    ],
)
def test_a_config_that_describes_no_model_is_told_in_one_line(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen3_moe", **FAMILIES["qwen3_moe"], key: value}))
    with pytest.raises(UsageError, match="no checkpoint can be made of this config") as told:
        make(Order(like=str(path), out=tmp_path / "out", layers=2))
    assert "\n" not in told.value.message
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_build_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeper.canary.writer.ShardWriter.close", stop)
    with pytest.raises(KeyboardInterrupt):
        make(Order(like="tiny", out=tmp_path / "canary"))
    assert list(tmp_path.iterdir()) == []


def test_weights_larger_than_the_disk_are_refused_before_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen3_moe", **FAMILIES["qwen3_moe"], "hidden_size": 10**9}))
    with pytest.raises(EnvironmentNotReady, match="GB free, the weights take at least"):
        make(Order(like=str(path), out=tmp_path / "out", layers=2))


def test_a_disk_that_fills_up_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **named: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(EnvironmentNotReady, match=r"cannot be written: .*No space left on device"):
        make(Order(like="tiny", out=tmp_path / "canary"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FAMILIES)
def test_drawn_weights_come_with_the_experts_that_the_reference_chose(tmp_path: Path, kind: str) -> None:
    """Each expert of each layer sees enough tokens for a wrong one to be told from rounding."""
    make(Order(like=config_file(tmp_path, kind), out=tmp_path / "out"))
    made = golden.load(tmp_path / "out" / golden.FILE_NAME)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    dense = config.get("first_k_dense_replace") or 0
    seen: Counter[tuple[int, int]] = Counter()
    for case in made.cases:
        assert sorted(case.prompt_experts) == list(range(dense, config["num_hidden_layers"]))
        for layer, rows in case.prompt_experts.items():
            assert [len(set(row)) for row in rows] == [config["num_experts_per_tok"]] * len(case.prompt_ids)
            seen.update((layer, expert) for row in rows for expert in row)
    assert len(seen) == cut.expert_count(config) * (config["num_hidden_layers"] - dense)
    assert min(seen.values()) >= LEAST


def test_weights_that_are_quantised_already_are_not_kept(tmp_path: Path) -> None:
    """Their scales would be left behind, and the golden vectors would agree with the damage."""
    make(Order(like="speaking", out=tmp_path / "fp8", quant="fp8", keep_weights=True, golden=False))
    with pytest.raises(UsageError, match="is quantised already"):
        make(Order(like=str(tmp_path / "fp8"), out=tmp_path / "again", quant="bf16", keep_weights=True, golden=False))
