"""A checkpoint folder: exact sizes from headers, and clear words for every way it can be broken."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from sweeper.checkpoint import read_checkpoint, read_geometry, tensor_sizes
from sweeper.core.errors import BadFile, UsageError

CONFIG = {
    "model_type": "qwen3_moe", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 16, "num_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 4,
}  # fmt: skip


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
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_tensors(tmp_path / "a.safetensors", {"model.layers.0.mlp.experts.0.up_proj.weight": 100, "lm_head.weight": 7})
    write_tensors(tmp_path / "b.safetensors", {"mtp.fc.weight": 30, "model.layers.2.input_layernorm.weight": 5})
    return tmp_path


def index(folder: Path, *names: str) -> None:
    weight_map = {f"t{number}": name for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_sizes_are_those_of_the_tensors_with_the_prediction_head_apart(folder: Path) -> None:
    found = read_checkpoint(folder)
    assert found.bytes_by_part == {"routed": 100, "other": 7, "mtp": 35}
    assert (found.weights_bytes, found.tensors, found.files) == (107, 4, ("a.safetensors", "b.safetensors"))
    assert found.geometry == read_geometry(folder)


def test_the_index_says_which_files_count(folder: Path) -> None:
    index(folder, "a.safetensors")
    assert read_checkpoint(folder).files == ("a.safetensors",)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model folder"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_folder_without_config_or_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"config\.json: no such file"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(UsageError, match=r"no \*\.safetensors"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ('{\n "a": ,\n}', "not JSON", 2),
        ("[]", "not a JSON object", None),
        ('{"model_type": "x"}', "no num_hidden_layers", None),
    ],
)
def test_a_broken_config_is_named_with_its_line(folder: Path, text: str, problem: str, line: int | None) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(BadFile, match=problem) as caught:
        read_checkpoint(folder)
    assert caught.value.line == line


def test_files_that_the_index_promises_and_the_disk_lacks_are_counted(folder: Path) -> None:
    index(folder, "a.safetensors", "c.safetensors", "d.safetensors", "e.safetensors", "f.safetensors")
    with pytest.raises(BadFile, match=r"4 of 5 weight files are missing: c\.safetensors, .* and 1 more"):
        read_checkpoint(folder)


def test_an_empty_index_is_an_error(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(BadFile, match="weight_map"):
        read_checkpoint(folder)


def test_a_checkpoint_cut_in_half_says_how_much_is_missing(folder: Path) -> None:
    write_tensors(folder / "a.safetensors", {"x": 1000}, cut=400)
    with pytest.raises(BadFile, match=r"cut off: its header promises [\d,]+ bytes, the file has"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("data", "problem"),
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
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)
    with pytest.raises(BadFile, match=problem) as caught:
        tensor_sizes(file)
    assert caught.value.path == str(file)
