"""Versions of the packages that decide which kernels run, read without importing them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sweeper.core.values import Cell

PACKAGES = (
    "vllm", "sglang", "sgl-kernel", "torch", "triton", "transformers", "flashinfer-python", "flashinfer-cubin",
    "flashinfer-jit-cache", "nvidia-cutlass-dsl", "cuda-python", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime",
    "nvidia-nccl-cu12", "nvidia-nccl-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "deep-gemm", "deep_ep",
    "compressed-tensors", "nvidia-modelopt", "xformers", "flash-attn", "tensorrt-llm", "accelerate", "numpy",
)  # fmt: skip

_CODE = """
import json, platform, sys
from importlib import metadata
out = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        out[name] = metadata.version(name)
    except Exception:
        pass
print(json.dumps(out))
"""
_TIMEOUT_S = 60.0


def versions_of(cell: Cell, image: str | None) -> dict[str, str]:
    """By package; empty where the environment is not at hand any more. Starts a bare interpreter, for seconds."""
    if image:
        docker = shutil.which("docker")
        run = [docker, "run", "--rm", "--network", "none", "--entrypoint", "python3", image] if docker else []
        local = [docker, "image", "inspect", image] if docker else []
        return _asked(run) if run and _works(local) else {}
    python = cell.python or ("python3" if cell.engine != "command" else "")
    return _asked([python]) if python and (shutil.which(python) or Path(python).exists()) else {}


def _works(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _asked(argv: list[str]) -> dict[str, str]:
    try:
        done = subprocess.run(
            [*argv, "-c", _CODE, *PACKAGES],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[dict[str, str]]:
    """`{what, then, now}` for everything that both sides know and that differs."""
    return [
        {"what": name, "then": then[name], "now": now[name]}
        for name in then
        if name in now and then[name] and now[name] and then[name] != now[name]
    ]
