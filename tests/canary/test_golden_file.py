"""The golden file loads without torch, and says what is wrong with one that does not load."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.canary import golden
from sweeper.canary.speaking import speaking_dir, unpack
from sweeper.core.errors import BadFile, UsageError


def shipped() -> golden.GoldenFile:
    found = golden.find(speaking_dir())
    assert found is not None
    return golden.load(found)


def test_the_shipped_golden_file_is_complete() -> None:
    file = shipped()
    assert file.quant == "bf16"
    assert file.mean_nll < 0.5 * file.uniform_nll
    assert file.mean_nll == pytest.approx(golden.mean_nll(file.cases), abs=1e-4)
    for case in file.cases:
        assert len(case.prompt_ids) == len(case.prompt_logprobs) == len(case.prompt_top)
        assert case.prompt_logprobs[0] is None
        assert case.prompt_top[0] is None
        assert len(case.greedy_ids) == len(case.greedy_logprobs) == len(case.greedy_top)
        for chosen, top in zip(case.greedy_ids, case.greedy_top, strict=True):
            assert top[0][0] == chosen
            assert len(top) == file.top_k


def test_every_quantisation_family_has_a_tolerance_with_its_source() -> None:
    for name in ("bf16", "fp8", "fp8-block", "nvfp4", "nvfp4-w4a16", "mxfp4", "int4"):
        assert golden.TOLERANCES[name].source


def test_loading_a_golden_file_imports_no_torch() -> None:
    code = (
        "import sys; from sweeper.canary import golden; from sweeper.canary.speaking import speaking_dir;"
        "golden.load(golden.find(speaking_dir())); print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_saving_twice_gives_the_same_bytes_and_loads_back(tmp_path: Path) -> None:
    file = shipped()
    golden.save(file, tmp_path / "a.json.gz")
    golden.save(file, tmp_path / "b.json.gz")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert golden.load(tmp_path / "a.json.gz") == file


def test_a_plain_json_golden_file_loads(tmp_path: Path) -> None:
    found = golden.find(speaking_dir())
    assert found is not None
    (tmp_path / "golden.json").write_bytes(gzip.decompress(found.read_bytes()))
    assert golden.find(tmp_path) == tmp_path / "golden.json"
    assert golden.load(tmp_path / "golden.json") == shipped()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{}", "not a golden file"),
        (b"not json", "not a golden file"),
        (b"\x1f\x8bbroken", "damaged"),
        (gzip.compress(b"{}" * 100)[:10] + b"\xff" * 20, "damaged"),
    ],
)
def test_a_bad_golden_file_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "golden.json.gz"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=expected) as caught:
        golden.load(path)
    assert str(path) in caught.value.message


def test_a_missing_golden_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        golden.load(tmp_path / "none.json.gz")


def test_the_speaking_canary_unpacks_to_a_model_folder(tmp_path: Path) -> None:
    there = unpack(tmp_path / "speaking")
    config = json.loads((there / "config.json").read_text())
    assert config["architectures"] == ["Qwen3MoeForCausalLM"]
    for heads in ("num_attention_heads", "num_key_value_heads", "num_hidden_layers", "num_experts"):
        assert config[heads] % 2 == 0
    assert {"model.safetensors", "tokenizer.json", "prompts.json", "golden.json.gz"} <= {
        p.name for p in there.iterdir()
    }
    assert sum(path.stat().st_size for path in there.iterdir()) < 10_000_000
    with pytest.raises(UsageError, match="not empty"):
        unpack(there)
