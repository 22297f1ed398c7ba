"""What a native server inherits from the environment of sweeper: paths, locale, caches, credentials; no tuning.

A stray `VLLM_...` or `NCCL_...` of the user's shell would change what is served without a trace in the record; such
variables belong into the matrix (`env:`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath

_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TERM|XDG_.*|LD_LIBRARY_PATH|CUDA_HOME|CUDA_PATH|CC|CXX"
    r"|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_VISIBLE_DEVICES|WSL_.*|HF_.*|HUGGING.*|TRANSFORMERS_CACHE"
    r"|VLLM_CACHE_ROOT|TRITON_CACHE_DIR|TORCHINDUCTOR_CACHE_DIR|FLASHINFER_WORKSPACE_BASE|TORCH_HOME"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(?i:HTTPS?_PROXY|NO_PROXY)"
)


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of `environ` that a server may see."""
    return {name: value for name, value in environ.items() if _INHERITED.fullmatch(name)}


def with_own_bin(env: Mapping[str, str], program: str) -> dict[str, str]:
    """Put the folder of an interpreter given by path first on PATH, as activating its environment would.

    Engines call tools that were installed beside them (ninja for FlashInfer's JIT).
    """
    out = dict(env)
    folder = PurePath(program).parent
    if folder.is_absolute():
        out["PATH"] = f"{folder}:{out['PATH']}" if out.get("PATH") else str(folder)
    return out


def gpu_environment(gpus: tuple[str, ...]) -> dict[str, str]:
    """Variables that show a process only these GPUs (indexes, UUIDs or MIG ids); empty when none are named."""
    if not gpus:
        return {}
    # Without it CUDA numbers the fastest card first, NVML by bus.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
