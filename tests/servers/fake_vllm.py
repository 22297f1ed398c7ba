"""Stands for vLLM's server program: takes its flags, prints its lines, and serves scripted text over HTTP.

Which backends work here: auto and marlin; emulation serves noise; the rest is refused in vLLM's own words. Two tensor
parallel ranks die as they do on one NUMA node. Every start is noted in the file that FAKE_VLLM_STARTS names. With
FAKE_VLLM_DIES_AFTER it dies of a kernel so many seconds after it began to serve.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import scripted

LIST = "out of potential backends: ['FLASHINFER_TRTLLM', 'VLLM_CUTLASS', 'MARLIN', 'EMULATION']."
UNSUPPORTED = "NvFp4 MoE backend '{}' does not support the deployment configuration since kernel does not support {}."
NO_SUCH = (
    "ValueError: moe_backend='{}' is not supported for NvFP4 MoE. Expected one of ['cutlass', 'flashinfer_trtllm', "
    "'flashinfer_cutlass', 'marlin', 'humming', 'emulation']."
)
KERNEL = (
    "RuntimeError: [TensorRT-LLM][ERROR] Assertion failed: Failed to initialize cutlass TMA WS grouped gemm. Error: "
    "Error Internal (/build/cutlass_kernel_file_gemm_grouped_sm120_M128_BS_group0.generated.cu:60)"
)
NUMA = (
    "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers. Allowed NUMA nodes are [0]."
)


def say(level: str, text: str) -> None:
    print(f"(EngineCore pid=7) {level} 11-21 10:00:00 [nvfp4.py:300] {text}", flush=True)


def backend_lines(backend: str) -> bool:
    """What vLLM prints about the backend; False where it refuses to start."""
    if backend not in ("auto", "marlin", "emulation"):
        say("ERROR", NO_SUCH.format(backend))
        return False
    if backend == "auto" and os.environ.get("VLLM_LOGGING_LEVEL") == "DEBUG":
        say("DEBUG", UNSUPPORTED.format("FLASHINFER_TRTLLM", "current device cuda"))
        say("DEBUG", UNSUPPORTED.format("VLLM_CUTLASS", "current device cuda"))
    say("INFO", f"Using '{'MARLIN' if backend == 'auto' else backend.upper()}' NvFp4 MoE backend {LIST}")
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--served-model-name")
    parser.add_argument("--port", type=int)
    parser.add_argument("--moe-backend", default="auto")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    given, _ = parser.parse_known_args()
    with open(os.environ["FAKE_VLLM_STARTS"], "a", encoding="utf-8") as file:
        debug = os.environ.get("VLLM_LOGGING_LEVEL") == "DEBUG"
        file.write(json.dumps([Path(given.model).name, given.moe_backend, given.tensor_parallel_size, debug]) + "\n")
    say("INFO", "Initializing a V1 LLM engine (v0.32.0) with config: model='m'")
    if given.tensor_parallel_size > 1:
        say("ERROR", NUMA)
        return 1
    if not backend_lines(given.moe_backend):
        return 1
    text = "!!!!" if given.moe_backend == "emulation" else "prose"
    script = scripted.Script(model=given.served_model_name, rate=400.0, text=text)
    after = float(os.environ.get("FAKE_VLLM_DIES_AFTER", 0))
    if after:
        script = dataclasses.replace(script, exit_after=after, log_lines=((after - 0.1, KERNEL),))
    return asyncio.run(scripted._serve(script, "127.0.0.1", given.port))


if __name__ == "__main__":
    sys.exit(main())
