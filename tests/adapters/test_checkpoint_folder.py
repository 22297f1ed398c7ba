"""A checkpoint folder: sizes from headers, and clear words for every way it can be broken."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from sweeper.checkpoint import model_geometry, model_problem, tensor_sizes, weights_bytes
from sweeper.core.errors import BadFile


def write_tensors(file: Path, sizes: dict[str, int], *, cut: int = 0) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + bytes(end)
    file.write_bytes(data[: len(data) - cut])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    write_tensors(tmp_path / "a.safetensors", {"lm_head.weight": 7})
    write_tensors(tmp_path / "b.safetensors", {"mtp.fc.weight": 30})
    return tmp_path


def problem(folder: Path) -> str:
    return model_problem(str(folder)) or ""


def test_a_whole_folder_has_no_problem_and_a_size(folder: Path) -> None:
    assert model_problem(str(folder)) is None
    assert weights_bytes(str(folder)) == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert tensor_sizes(folder / "a.safetensors") == {"lm_head.weight": 7}


def test_a_missing_folder_is_named_with_where_to_look(tmp_path: Path) -> None:
    assert problem(tmp_path / "nowhere").endswith(f"nowhere does not exist; look with: ls {tmp_path}")


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    assert "has no config.json" in problem(tmp_path)


@pytest.mark.parametrize("text", ['{"a": ,}', "[]", "", "\x00"])
def test_a_broken_config_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert problem(folder) == f"{folder / 'config.json'} is not a JSON object"
    assert model_geometry(str(folder)) is None


def test_files_that_the_index_promises_and_the_disk_lacks_are_counted(folder: Path) -> None:
    names = ("a.safetensors", "c.safetensors", "d.safetensors")
    weight_map = {f"t{number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "2 of 3 weight files are missing, first c.safetensors" in problem(folder)


def test_a_checkpoint_cut_in_half_says_how_much_is_missing(folder: Path) -> None:
    write_tensors(folder / "a.safetensors", {"x": 1000}, cut=400)
    assert re.search(r"a.safetensors: cut off: its header promises [\d,]+ bytes, the file has", problem(folder))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"),
        (b"abc", "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (struct.pack("<Q", 10**9) + b"{}", "header longer"),
        (struct.pack("<Q", 3) + b"{a}" + b"x" * 9, "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "no data_offsets"),
        (struct.pack("<Q", 3) + b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)
    with pytest.raises(BadFile, match=words) as caught:
        tensor_sizes(file)
    assert caught.value.path == str(file)


CONFIG = {
    "model_type": "qwen3_moe", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 128,
    "num_experts": 8, "moe_intermediate_size": 32, "num_experts_per_tok": 2, "intermediate_size": 64,
}  # fmt: skip


def test_the_size_on_this_disk_belongs_to_the_geometry(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shape = model_geometry(str(folder))
    assert shape is not None and shape.stored_bytes == weights_bytes(str(folder))


def test_weights_kept_in_a_second_layout_count_once(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": "a.safetensors"}})
    )
    assert weights_bytes(str(folder)) == (folder / "a.safetensors").stat().st_size


def test_a_format_kept_in_modelopt_s_own_file_is_read(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    quant = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quant))
    shape = model_geometry(str(folder))
    assert shape is not None and shape.quantization == "nvfp4"
    assert "head" not in (shape.quantized_parts or ()) and "routed" in (shape.quantized_parts or ())
