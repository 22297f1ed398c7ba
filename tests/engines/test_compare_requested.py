"""Requested against effective."""

from __future__ import annotations

import pytest

from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell, Parallelism, Speculative
from sweeper.engines import names
from sweeper.engines.compare import compare_requested
from sweeper.engines.facts import compare_requested as from_facts


def ids(effective: EffectiveConfig, **changes: object) -> list[str]:
    cell = Cell(**{"engine": "vllm", "model": "m", **changes})  # type: ignore[arg-type]
    return [finding.id for finding in compare_requested(cell, effective)]


def test_what_the_log_does_not_say_is_no_finding() -> None:
    asked = {"moe_backend": "cutlass", "attention_backend": "FLASHINFER", "parallelism": Parallelism(tp=4)}
    assert ids(EffectiveConfig(), **asked) == []


def test_agreement_is_no_finding() -> None:
    effective = EffectiveConfig(
        moe_backend="cutlass", attention_backend="FLASHINFER", linear_backend="marlin", tp=4, pp=1, dp=1, ep=4,
        quantization="modelopt_fp4", engine_version="0.33.0",
    )  # fmt: skip
    asked = {
        "moe_backend": "cutlass", "attention_backend": "flashinfer", "linear_backend": "marlin",
        "parallelism": Parallelism(tp=4, ep=4), "quantization": "nvfp4", "engine_version": "0.33",
    }  # fmt: skip
    assert ids(effective, **asked) == []


def test_a_flag_that_names_a_kernel_otherwise_is_no_difference() -> None:
    ran = EffectiveConfig(linear_backend="flashinfer_deep_gemm")
    for asked in ("flashinfer_cutlass", "flashinfer-cutlass", "auto"):
        assert compare_requested(Cell(engine="vllm", model="m", linear_backend=asked), ran) == ()
    (found,) = compare_requested(Cell(engine="vllm", model="m", linear_backend="cutlass"), ran)
    assert found.id == "linear-backend-differs"


@pytest.mark.parametrize(
    ("effective", "changes", "finding"),
    [
        (EffectiveConfig(moe_backend="marlin", moe_backend_raw="MARLIN"), {"moe_backend": "cutlass"},
         "moe-backend-differs"),
        (EffectiveConfig(moe_backend="deep_gemm", moe_backend_ran=False), {"moe_backend": "deep_gemm"},
         "moe-backend-selected-not-run"),
        (EffectiveConfig(draft_moe_backend="triton"), {"moe_backend": "cutlass",
         "speculative": Speculative(method="mtp", tokens=1)}, "draft-backend-differs"),
        (EffectiveConfig(linear_backend="flashinfer_cutlass"), {"linear_backend": "marlin"}, "linear-backend-differs"),
        (EffectiveConfig(attention_backend="TRITON_ATTN"), {"attention_backend": "FLASHINFER"},
         "attention-backend-differs"),
        (EffectiveConfig(tp=1), {"parallelism": Parallelism(tp=2)}, "tp-differs"),
        (EffectiveConfig(ep=1), {"parallelism": Parallelism(tp=2, ep=2)}, "ep-differs"),
        (EffectiveConfig(quantization="fp8"), {"quantization": "nvfp4"}, "quantization-differs"),
        (EffectiveConfig(engine_version="0.32.0"), {"engine_version": "0.33.0"}, "engine-version-differs"),
        (EffectiveConfig(fallbacks=("a replaced by b",)), {}, "fallback"),
        (EffectiveConfig(autotune_skipped=20, autotune_total=21), {}, "autotune-mostly-skipped"),
        (EffectiveConfig(autotune_skipped=2), {}, "autotune-skipped"),
        (EffectiveConfig(jit_in_run=3), {}, "jit-in-run"),
    ],
)  # fmt: skip
def test_each_difference_has_its_finding(effective: EffectiveConfig, changes: dict[str, object], finding: str) -> None:
    assert ids(effective, **changes) == [finding]


@pytest.mark.parametrize(
    "effective",
    [
        EffectiveConfig(moe_backend="triton"),
        EffectiveConfig(quantization="compressed-tensors"),
        EffectiveConfig(jit_in_run=0),
        EffectiveConfig(autotune_skipped=0),
    ],
)
def test_auto_and_zero_are_no_findings(effective: EffectiveConfig) -> None:
    assert ids(effective, quantization="fp8") == []


def test_layouts_of_triton_are_one_kernel() -> None:
    assert ids(EffectiveConfig(moe_backend="batched_triton"), moe_backend="triton") == []


def test_no_quantization_is_bf16() -> None:
    assert ids(EffectiveConfig(quantization="none"), quantization="bf16") == []
    assert ids(EffectiveConfig(quantization="none"), quantization="nvfp4") == ["quantization-differs"]


def test_the_text_holds_both_sides() -> None:
    cell = Cell(engine="vllm", model="m", moe_backend="cutlass")
    (finding,) = from_facts(cell, EffectiveConfig(moe_backend="marlin", moe_backend_raw="MARLIN"))
    assert finding.text == "MoE backend cutlass was asked for, the log shows marlin (MARLIN)"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("FLASHINFER_CUTEDSL_BATCHED", "flashinfer_cutedsl"),
        ("AITER_MXFP4_BF16", "aiter"),
        ("BATCHED_DEEPGEMM", "deep_gemm"),
        ("B12X_MXFP4_BF16", "b12x"),
        ("BATCHED_TRITON", "batched_triton"),
        ("NEW_THING", "new_thing"),
    ],
)
def test_names_of_the_log_become_names_of_the_flag(raw: str, name: str) -> None:
    assert names.moe(raw) == name
