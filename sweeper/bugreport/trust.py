"""What in a stranger's report could run code of its own, beyond the engine on a canary."""

from __future__ import annotations

from sweeper.core.values import Cell

_PUBLISHERS = ("vllm/", "lmsysorg/", "nvcr.io/nvidia/", "rocm/", "intel/", "docker.io/vllm/", "docker.io/lmsysorg/")
_ENV = (
    "VLLM_", "SGLANG_", "SGL_", "CUDA_", "NCCL_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "FLASHINFER_",
    "OMP_", "MKL_", "HF_HUB_", "TRANSFORMERS_", "NVIDIA_", "TOKENIZERS_", "SAFETENSORS_", "DO_NOT_TRACK", "GLOO_",
    "UCX_", "TORCHDYNAMO_DISABLE",
)  # fmt: skip
_ENV_CODE = (
    "VLLM_PLUGINS",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "VLLM_TORCH_PROFILER_DIR",
)
_FLAGS = (
    "--trust-remote-code", "--middleware", "--logits-processors", "--tool-parser-plugin", "--reasoning-parser-plugin",
    "--worker-cls", "--worker-extension-cls", "--model", "--model-path", "--code-revision", "--tokenizer",
    "--hf-overrides", "--scheduler-cls", "--kv-transfer-config", "--config", "--load-format", "--model-impl",
    "--chat-template",
    "--custom-weight-loader", "--additional-config",
)  # fmt: skip


def doubts(cell: Cell, *, image_is_ours: bool) -> tuple[str, ...]:
    """One sentence per thing that a person should have looked at; empty: the engine alone runs, on a canary."""
    found = []
    if cell.engine == "command":
        found.append(f"it starts a program of its own: {' '.join(cell.command)[:200]}")
    if cell.launcher == "docker" and cell.image and not image_is_ours and not cell.image.startswith(_PUBLISHERS):
        found.append(f"it runs the image {cell.image}")
    for name, value in cell.env:
        if not name.startswith(_ENV) or name in _ENV_CODE:
            found.append(f"it sets {name}={value[:80]}")
    for word in cell.extra_args:
        if word.split("=")[0].replace("_", "-") in _FLAGS:
            found.append(f"it passes {word[:80]} to the engine")
    if cell.speculative and cell.speculative.model:
        found.append(f"it loads the draft model {cell.speculative.model}")
    return tuple(found)
