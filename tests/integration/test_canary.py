"""A built canary, served by real vLLM natively and in Docker, is right; a copy with two experts exchanged is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import IMAGE, ROOT, sweep

BUILD = ("--like", "Qwen3-30B-A3B", "--layers", "2", "--experts", "8")
"""Hidden size, expert size and heads of the real model: 0.24 GB of weights."""

ENGINE_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "1", "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip

MATRIX = """\
title: A canary and a broken copy of it
engine: vllm
engine_version: 0.32.0
python: ${{SWEEPER_ENGINE_PYTHON}}
model: {whole}
quantization: bf16
env: {{VLLM_CPU_KVCACHE_SPACE: 1, VLLM_CPU_NUM_OF_RESERVED_CPU: 1, OMP_NUM_THREADS: 1}}
max_model_len: 512
extra_args: [--enforce-eager, --max-num-seqs, 8]
cells:
  - {{name: whole}}
  - {{name: broken, model: {broken}}}
workloads:
  - {{name: decode, preset: sustained-decode, isl: 32, osl: 128, concurrency: [1], window_s: 1, warmup_s: 0.2}}
policy:
  launches: 1
  deadlines: {{ready_s: 180, first_answer_s: 60, sanity_s: 120, canary_s: 120, measure_s: 60, gpu_free_s: 5}}
hardware: {{count: 0}}
"""


@pytest.fixture(scope="module")
def whole(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the engine's interpreter, which has torch; the tests' own needs none."""
    out = tmp_path_factory.mktemp("canary") / "whole"
    argv = [str(engine), "-m", "sweeper", "canary", "build", *BUILD, "--out", str(out), "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=170, env=env)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["experts"] == 8
    assert made["mean_nll"] < 0.5 * made["uniform_nll"]
    return out


@pytest.fixture(scope="module")
def broken(whole: Path) -> Path:
    """Experts 0 and 1 carry each other's names, in every layer; the golden file is the whole one's."""
    out = whole.parent / "broken"
    shutil.copytree(whole, out)
    weights = out / "model.safetensors"
    with weights.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size)
        swapped = header.replace(b".experts.0.", b".experts.X.").replace(b".experts.1.", b".experts.0.")
        swapped = swapped.replace(b".experts.X.", b".experts.1.")
        assert swapped != header and len(swapped) == len(header)
        file.seek(8)
        file.write(swapped)
    return out


@contextmanager
def served(python: Path, model: Path, log: Path) -> Iterator[str]:
    """Base URL of a vLLM server over `model`, started by hand and stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1",
        "--port", str(port), "--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager",
    ]  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, **ENGINE_ENV})
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path, limit_s: float = 150) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < limit_s:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"not healthy after {limit_s:.0f} s\n{log.read_text()[-3000:]}")


def check(url: str, golden: Path) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "sweeper", "check", url, "--golden", str(golden), "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_built_canary_on_a_real_server_is_right(engine: Path, whole: Path, tmp_path: Path) -> None:
    with served(engine, whole, tmp_path / "server.log") as url:
        code, found = check(url, whole / "golden.json.gz")
    assert (code, found["verdict"]) == (0, "right"), found
    assert abs(found["nll"]["shift"]) < 0.02
    assert not found["nan"] and found["degenerate"]["n"] >= 74


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_two_exchanged_experts_on_a_real_server_are_seen(engine: Path, broken: Path, tmp_path: Path) -> None:
    with served(engine, broken, tmp_path / "server.log") as url:
        code, found = check(url, broken / "golden.json.gz")
    assert code == 1, found
    assert found["verdict"] in ("degraded", "garbage"), found


@pytest.mark.docker
@pytest.mark.engine
@pytest.mark.timeout(600)
def test_in_docker_a_sweep_ranks_the_whole_canary_only(whole: Path, broken: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "canaries.yaml"
    matrix.write_text(MATRIX.format(whole=whole, broken=broken))
    outcomes = sweep(str(matrix), tmp_path / "logs", "--launcher", "docker", "--image", IMAGE).verdicts()
    assert outcomes["whole"] == "ran", outcomes
    assert "garbage-output" in outcomes["broken"], outcomes
