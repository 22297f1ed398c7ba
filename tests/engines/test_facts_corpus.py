"""Facts of real logs, where a folder with some is at hand (SWEEPER_CORPUS)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.core.effective import EffectiveConfig
from sweeper.engines.facts import read_facts

CORPUS = Path(os.environ.get("SWEEPER_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="no folder of real logs")


def facts_of(name: str) -> EffectiveConfig:
    path = CORPUS / name
    if not path.exists():
        pytest.skip(f"no {name}")
    return read_facts(path.read_text(encoding="utf-8", errors="replace").split("\n"))


def test_two_ranks_of_nvfp4_on_marlin() -> None:
    facts = facts_of("vllm-0.24.0-h200x2-nvfp4-marlin-tp2.log")
    assert (facts.engine_version, facts.moe_backend, facts.tp, facts.pp, facts.ep) == ("0.24.0", "marlin", 2, 1, 1)
    assert (facts.weights_gib, facts.kv_cache_tokens, facts.cuda_graphs) == (0.02, 5613152, False)
    assert facts.ready


def test_two_pipeline_stages() -> None:
    facts = facts_of("vllm-0.24.0-h200x2-bf16-pp2.log")
    assert (facts.tp, facts.pp, facts.moe_backend, facts.moe_backend_ran) == (1, 2, "triton", True)


def test_speculation_and_its_acceptance() -> None:
    facts = facts_of("vllm-0.24.0-h200-bf16-ngram.log")
    assert (facts.speculative_method, facts.acceptance_length) == ("ngram", 2.74)
    assert facts.jit_in_run == 5


def test_online_fp8_and_its_linear_kernel() -> None:
    facts = facts_of("vllm-0.24.0-h200-fp8-triton.log")
    assert (facts.quantization, facts.linear_backend, facts.attention_backend) == ("fp8", "cutlass", "TRITON_ATTN")


def test_a_refused_backend_leaves_the_field_unknown() -> None:
    facts = facts_of("vllm-0.24.0-h200-nvfp4-cutlass.log")
    assert (facts.moe_backend, facts.ready) == (None, False)


def test_the_cpu_build() -> None:
    facts = facts_of("vllm-0.32.0-cpu-ngram.log")
    assert (facts.moe_backend, facts.moe_backend_raw, facts.kv_cache_gib) == ("cpu", "CPU", 1.0)
    assert facts.model_runner == "V1"
