"""`sweeper plan` and `sweeper schema` as a person and as a script see them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.checkpoint import model_geometry, model_problem, weights_bytes
from sweeper.cli.main import main
from sweeper.plan.text import duration, ranges

ROOT = Path(__file__).parent.parent.parent
P1 = ROOT / "matrices" / "qwen3.5-397b-nvfp4-sm120.yaml"
SMALL = """
title: Small
engine: vllm
engine_version: 0.33.0
image: vllm/vllm-openai:v0.33.0
model: Qwen/Qwen3-30B-A3B
quantization: bf16
env: {HF_TOKEN: abc123}
axes: {parallelism: [{tp: 1}, {tp: 4}], moe_backend: [auto, triton]}
exclude: [{moe_backend: triton, parallelism: {tp: 1}, why: seen already}]
hardware: {gpu: H200, count: 2, memory_gib: 140, sm: "9.0"}
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return str(file)


def out(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["plan", *argv]) == 0
    return capsys.readouterr().out


def test_json_has_the_documented_keys(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(out(capsys, small, "--json"))
    assert plan["schema"] == 1
    assert isinstance(plan["time_bound_s"], float)
    for cell in plan["cells"]:
        assert {"id", "label", "status", "reasons", "config", "memory", "command"} <= set(cell)
        assert cell["status"] in ("run", "warn", "excluded")
        assert len(cell["id"]) == 12
        assert bool(cell["reasons"]) == (cell["status"] != "run")
    assert [cell["status"] for cell in plan["cells"]] == ["run", "excluded", "excluded", "excluded"]
    assert plan["cells"][0]["config"]["parallelism"]["tp"] == 1
    assert plan["cells"][0]["memory"]["fits"] is True


def test_the_published_sweep_is_planned_for_containers_with_its_native_cell_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = json.loads(out(capsys, str(P1), "--json", "--launcher", "docker"))["cells"]
    assert len(cells) == 16
    native = [cell["label"] for cell in cells if not cell["command"].startswith("docker run")]
    assert native == ["CUTLASS native"]


def test_the_published_sweep_is_planned_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(out(capsys, str(P1), "--json"))
    assert len(plan["cells"]) == 16
    assert plan["hardware"]["count"] == 4
    assert all(cell["memory"]["fits"] for cell in plan["cells"])
    assert all(cell["command"] for cell in plan["cells"])


def test_excluded_cells_are_listed_with_the_author_s_why_and_the_rule(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = out(capsys, small)
    assert "1 cell to run, 3 excluded" in text
    assert "excluded by the matrix: seen already" in text
    assert "needs 4 GPUs" in text


def test_commands_are_one_line_each_and_hide_secrets(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, small, "--show-commands")
    (line,) = [line for line in text.splitlines() if line.startswith("     $ ")]
    assert line.strip().startswith("$ docker run ")
    assert "127.0.0.1:8000:8000" in line
    assert "--gpus 1" in line
    assert "abc123" not in text
    assert "abc123" not in json.dumps(json.loads(out(capsys, small, "--json"))["cells"][0]["command"])


def test_the_launcher_on_the_command_line_changes_the_command(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, small, "--show-commands", "--launcher", "process")
    assert "docker run" not in text
    assert "-m vllm.entrypoints.openai.api_server" in text


def test_docker_without_an_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("engine: vllm\nmodel: org/m\n")
    assert main(["plan", str(file), "--launcher", "docker"]) == 2
    assert "needs an image" in capsys.readouterr().err


def test_only_plans_a_part(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(json.loads(out(capsys, small, "--json", "--only", "tp=1"))["cells"]) == 2
    assert main(["plan", small, "--only", "tpp=1"]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [80, 200])
def test_no_line_is_wider_than_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for file in sorted((ROOT / "matrices").glob("*.yaml")):
        text = out(capsys, str(file))
        assert max(len(line) for line in text.splitlines()) <= columns, file.name


def test_a_cell_that_the_engine_cannot_express_is_excluded_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "engine: command\nmodel: org/m\ncommand: [srv, '{model}', '{port}']\naxes: {parallelism: [{tp: 1}, {tp: 2}]}\n"
    )
    cells = json.loads(out(capsys, str(file), "--json"))["cells"]
    assert [cell["status"] for cell in cells] == ["run", "excluded"]
    assert "no {tp}" in cells[1]["reasons"][0]
    assert cells[1]["command"] is None


def test_a_missing_model_folder_is_a_warning_and_the_plan_still_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(f"engine: vllm\nmodel: {tmp_path}/nowhere\n")
    (cell,) = json.loads(out(capsys, str(file), "--json"))["cells"]
    assert cell["status"] == "warn"
    assert "nowhere does not exist" in cell["reasons"][0]


CONFIG = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "intermediate_size": 64,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
}  # fmt: skip


def checkpoint(folder: Path, *, cut: int = 0) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    (folder / "model.safetensors").write_bytes(whole[: len(whole) - cut])
    return str(folder)


def test_a_whole_checkpoint_has_geometry_size_and_no_problem(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "m")
    assert model_problem(model) is None
    assert weights_bytes(model) == (tmp_path / "m" / "model.safetensors").stat().st_size
    geometry = model_geometry(model)
    assert geometry is not None
    assert geometry.experts == 4


@pytest.mark.parametrize("cut", [1, 16, 40, 90])
def test_a_checkpoint_cut_in_half_is_seen_before_the_launch(tmp_path: Path, cut: int) -> None:
    assert "cut" in (model_problem(checkpoint(tmp_path / "m", cut=cut)) or "")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "m")
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "1 of 2 weight files are missing, first model-2.safetensors" in (model_problem(model) or "")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1}'])
def test_a_config_that_says_nothing_gives_no_geometry_and_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert model_geometry(str(tmp_path)) is None


def test_a_hub_id_is_not_looked_for_on_the_disk() -> None:
    assert model_problem("org/m") is None
    assert weights_bytes("org/m") is None


def test_schema_prints_and_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", "--out", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == printed
    assert main(["schema", "--out", str(tmp_path / "s.json" / "t.json")]) == 3
    assert "cannot write" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(small: str) -> None:
    line = f"{sys.executable} -m sweeper plan {small} --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (120, "120 s"), (121, "3 min"), (7199, "2 h"), (12000, "3 h 20 min")]
)
def test_durations_round_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ranges() -> None:
    assert ranges([5, 1, 2, 3, 7, 8]) == "1-3, 5, 7-8"


def test_a_matrix_for_cpus_asks_docker_for_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cpu.yaml"
    text = "engine: command\nmodel: org/m\nimage: box:1\ncommand: [srv, '{port}']\nhardware: {count: %d}\n"
    file.write_text(text % 0)
    assert "--gpus" not in json.loads(out(capsys, str(file), "--json"))["cells"][0]["command"]
    file.write_text(text % 1)
    assert "--gpus 1" in json.loads(out(capsys, str(file), "--json"))["cells"][0]["command"]
