"""Bytes per rank, and what would make a cell fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper import catalogue
from sweeper.core import memory
from sweeper.core.geometry import Geometry
from sweeper.core.memory import GIB, MemoryFit
from sweeper.core.values import Cell, Hardware, Parallelism, Speculative, Workload

CARD = Hardware(gpu="RTX PRO 6000 Blackwell", count=4, memory_gib=95.6, sm="12.0")
WORK = (Workload(isl=128, osl=512, concurrency=(1,)),)


def shape(name: str, family: str | None = None) -> Geometry:
    found = catalogue.geometry(name, family)
    assert found is not None
    return found


def qwen(p: Parallelism, *, hardware: Hardware = CARD, work: tuple[Workload, ...] = WORK, **more: object) -> MemoryFit:
    cell = Cell(
        **{"engine": "vllm", "model": "m", "quantization": "nvfp4", "parallelism": p, "max_model_len": 4096, **more}  # type: ignore[arg-type]
    )
    return memory.fit(cell, shape("Qwen3.5-397B-A17B"), hardware, work)


def test_the_397b_checkpoint_is_237_gb_since_only_its_routed_experts_are_nvfp4() -> None:
    assert memory.checkpoint_bytes(shape("Qwen3.5-397B-A17B"), "nvfp4") == pytest.approx(237e9, rel=0.002)
    assert memory.checkpoint_bytes(shape("nvidia/Qwen3.5-397B-A17B-NVFP4"), None) == pytest.approx(237e9, rel=0.002)


def test_the_397b_model_fits_four_96_gb_cards_at_tp_4() -> None:
    fit = qwen(Parallelism(tp=4))
    assert fit.fits
    assert fit.parts["weights"] / GIB == pytest.approx(55.2, abs=0.5)
    assert fit.dominating == "weights"
    assert fit.knob == ""


@pytest.mark.parametrize("p", [Parallelism(tp=2), Parallelism(pp=2), Parallelism(tp=2, ep=2)])
def test_the_397b_model_does_not_fit_two_cards_and_the_way_out_is_named(p: Parallelism) -> None:
    fit = qwen(p)
    assert fit.fits is False
    assert fit.dominating == "weights"
    assert fit.knob.startswith("tp=")


def test_the_way_out_says_when_this_machine_is_too_small_for_it() -> None:
    assert "has 2 GPUs" in qwen(Parallelism(tp=2), hardware=replace(CARD, count=2)).knob


def test_layouts_of_the_same_four_cards_need_about_the_same_weights() -> None:
    sizes = [qwen(p).parts["weights"] / GIB for p in (
        Parallelism(tp=4), Parallelism(tp=2, pp=2), Parallelism(pp=4), Parallelism(tp=4, ep=4),
        Parallelism(tp=2, dp=2, ep=4),
    )]  # fmt: skip
    assert all(54 < size < 60 for size in sizes)


def test_data_parallel_repeats_everything_but_the_experts() -> None:
    assert qwen(Parallelism(tp=2, dp=2, ep=4)).parts["weights"] > qwen(Parallelism(tp=4, ep=4)).parts["weights"] + GIB


def test_data_parallel_in_sglang_repeats_the_experts_too() -> None:
    sizes = [qwen(Parallelism(tp=4, dp=dp), engine="sglang").parts["weights"] for dp in (1, 2)]
    assert sizes[0] == sizes[1]


def test_the_prediction_head_is_counted_in_16_bits() -> None:
    fit = qwen(Parallelism(tp=4), speculative=Speculative(method="mtp", tokens=2))
    assert fit.parts["mtp"] / GIB == pytest.approx(6.6e9 * 2 / 4 / GIB, rel=0.02)


def test_kv_bytes_match_the_published_figure_and_double_where_heads_are_replicated() -> None:
    geometry = shape("Qwen3.5-397B-A17B")
    assert memory.kv_bytes_per_token(geometry, 1, 1.0) == 15360
    assert memory.kv_bytes_per_token(geometry, 4, 1.0) * 4 == 15360 * 2
    assert "each is kept 2 times" in qwen(Parallelism(tp=4)).notes[0]


def test_a_delta_net_state_grows_with_streams_and_not_with_context() -> None:
    many = (Workload(isl=128, osl=512, concurrency=(64,)),)
    one, lots = qwen(Parallelism(tp=4)), qwen(Parallelism(tp=4), work=many)
    assert lots.parts["state"] == pytest.approx(64 * one.parts["state"], rel=0.01)
    assert one.parts["state"] * 4 == pytest.approx(45 * 64 * 128 * 128 * 4, rel=0.05)


def test_a_compressed_cache_is_whole_on_every_rank() -> None:
    geometry = shape("DeepSeek-V3")
    assert memory.kv_bytes_per_token(geometry, 8) == memory.kv_bytes_per_token(geometry, 1) == 61 * 576 * 2


def test_sliding_layers_keep_their_window_only() -> None:
    geometry = shape("GPT-OSS-20b")
    cell = Cell(engine="vllm", model="m", quantization="mxfp4", max_model_len=100_000)
    kv = memory.fit(cell, geometry, CARD, WORK).parts["kv"]
    per_layer = 2 * 8 * 64 * 2
    assert kv == 12 * per_layer * 100_000 + 12 * per_layer * 128


def test_vllm_without_a_context_limit_must_hold_the_models_longest() -> None:
    geometry = shape("Qwen3.5-397B-A17B")
    fit = memory.fit(
        Cell(engine="vllm", model="m", quantization="nvfp4", parallelism=Parallelism(tp=4)), geometry, CARD, WORK
    )
    assert "262,144 tokens" in fit.notes[0] + fit.notes[-1]


def test_a_context_that_is_too_long_is_cut_to_what_the_workload_needs() -> None:
    geometry = shape("Qwen3-32B")
    cell = Cell(engine="vllm", model="m", quantization="bf16", max_model_len=200_000)
    fit = memory.fit(cell, geometry, CARD, WORK)
    assert fit.fits is False
    assert fit.knob.startswith("--max-model-len 640")
    assert "kv" in fit.summary()


def test_an_fp8_cache_halves_it() -> None:
    cell = Cell(engine="vllm", model="m", max_model_len=10_000)
    geometry = shape("Qwen3-14B")
    full = memory.fit(cell, geometry, CARD, WORK).parts["kv"]
    half = memory.fit(replace(cell, extra_args=("--kv-cache-dtype=fp8",)), geometry, CARD, WORK).parts["kv"]
    assert half * 2 == full


def test_dropping_mtp_is_offered_when_the_head_is_what_does_not_fit() -> None:
    room = Hardware(count=4, memory_gib=66.5, sm="12.0")
    fit = qwen(Parallelism(tp=4), hardware=room, max_model_len=640, gpu_memory_utilization=0.9,
               extra_args=("--kv-cache-dtype", "fp8"), speculative=Speculative(method="mtp", tokens=2))  # fmt: skip
    assert fit.fits is False
    assert "no MTP" in fit.knob


def test_without_a_known_card_nothing_is_claimed() -> None:
    fit = qwen(Parallelism(tp=4), hardware=Hardware())
    assert (fit.fits, fit.limit_bytes) == (None, None)


def test_an_exact_checkpoint_size_replaces_the_estimate() -> None:
    geometry = shape("Qwen3-14B")
    cell = Cell(engine="vllm", model="m", max_model_len=640)
    exact = memory.fit(cell, geometry, CARD, WORK, weights_bytes=10 * GIB)
    assert exact.parts["weights"] == pytest.approx(10 * GIB, rel=0.001)
    assert exact.checkpoint_bytes == 10 * GIB


@pytest.mark.parametrize(
    ("layers", "stages", "counts"), [(60, 4, [15, 15, 15, 15]), (61, 2, [31, 30]), (7, 3, [2, 3, 2])]
)
def test_pipeline_stages_hold_all_layers_once(layers: int, stages: int, counts: list[int]) -> None:
    dealt = memory.stage_layers(layers, stages)
    assert [len(stage) for stage in dealt] == counts
    assert [index for stage in dealt for index in stage] == list(range(layers))


def test_a_published_size_that_the_format_cannot_have_is_a_finding() -> None:
    geometry = shape("Qwen3.5-397B-A17B")
    finding = memory.size_finding(geometry, "nvfp4", 140, source="forum post")
    assert finding is not None
    assert finding.id == "published-size-inconsistent"
    assert "237 GB" in finding.text
    assert "2.8 bits" in finding.text
    assert memory.size_finding(geometry, "nvfp4", 237) is None


@pytest.mark.parametrize(
    ("name", "family", "gb"),
    [("GPT-OSS-120b", None, 65), ("GPT-OSS-20b", None, 13.8), ("DeepSeek-V3", None, 688), ("Qwen3-32B", "fp8", 34)],
)
def test_known_checkpoints_have_their_known_size(name: str, family: str | None, gb: float) -> None:
    assert memory.checkpoint_bytes(shape(name, family), family) / 1e9 == pytest.approx(gb, rel=0.05)


def test_the_json_form_is_in_gib_with_two_digits() -> None:
    data = qwen(Parallelism(tp=4)).to_json()
    assert data["fits"] is True
    assert data["checkpoint_gb"] == 237.0
    assert set(data["parts_gib"]) == {"weights", "kv", "state", "mtp", "overhead"}  # type: ignore[call-overload]
