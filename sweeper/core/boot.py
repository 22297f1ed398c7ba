"""Names for the stretches of a server's start-up, read off its log as it is written. For the live line only."""

from __future__ import annotations

MARKERS: tuple[tuple[str, str], ...] = (
    ("Application startup complete", "serving"),
    ("The server is fired up", "serving"),
    ("Starting vLLM", "starting server"),
    ("Capturing CUDA graph", "capturing graphs"),
    ("Capture cuda graph begin", "capturing graphs"),
    ("Running FlashInfer autotune", "autotuning"),
    ("GPU KV cache size", "KV cache ready"),
    ("KV Cache is allocated", "KV cache ready"),
    ("Available KV cache memory", "KV cache"),
    ("torch.compile", "compiling"),
    ("Loading weights took", "weights loaded"),
    ("Load weight end", "weights loaded"),
    ("Loading safetensors", "loading weights"),
    ("Load weight begin", "loading weights"),
    ("Starting to load model", "loading weights"),
    ("MoE backend", "kernels selected"),
    ("Initializing a V1 LLM engine", "engine starting"),
    ("Initializing a V0 LLM engine", "engine starting"),
    ("server_args=", "engine starting"),
    ("llama_model_loader", "loading weights"),
    ("Resolved architecture", "reading config"),
)


def phase_of(line: str) -> str | None:
    """The stretch that this line begins, or None."""
    for literal, name in MARKERS:
        if literal in line:
            return name
    return None
