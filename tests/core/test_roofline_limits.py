"""Speed of light against the worked example for Qwen3.5-397B-A17B NVFP4 on four RTX PRO 6000."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.boards import board, board_of, names
from sweeper.catalogue import geometry
from sweeper.core.geometry import Geometry
from sweeper.core.roofline import (
    Board,
    SpeedOfLight,
    all_reduce_s,
    experts_per_rank,
    held_against,
    reached,
    speed_of_light,
)
from sweeper.core.values import Cell, Hardware, Parallelism, Speculative

CONCURRENCY = (1, 8, 32, 64, 128)


def qwen() -> Geometry:
    shape = geometry("nvidia/Qwen3.5-397B-A17B-NVFP4")
    assert shape is not None
    return shape


def pro6000() -> Board:
    found = board("NVIDIA RTX PRO 6000 Blackwell Server Edition")
    assert found is not None
    return replace(found, bf16_tflops=None, fp8_tflops=None, fp4_tflops=None)


def cell(tp: int = 4, pp: int = 1, ep: int = 1, drafts: int = 0, method: str = "mtp") -> Cell:
    return Cell(
        engine="vllm",
        model="nvidia/Qwen3.5-397B-A17B-NVFP4",
        quantization="nvfp4",
        parallelism=Parallelism(tp=tp, pp=pp, ep=ep),
        extra_args=("--kv-cache-dtype", "fp8"),
        speculative=Speculative(method=method, tokens=drafts) if drafts else None,
    )


def limit(what: Cell, concurrency: int, all_reduce_us: float | None = None, context: int = 1024) -> SpeedOfLight:
    return speed_of_light(
        what, qwen(), pro6000(), context=context, concurrency=concurrency, all_reduce_us=all_reduce_us
    )


TABLE = [
    ("80 % of the bandwidth, links free", cell(), 0.0, (258, 872, 1386, 1838, 2720)),
    ("one-shot all-reduce", cell(), 6.4, (215, 805, 1341, 1799, 2676)),
    ("NCCL all-reduce", cell(), 14.7, (177, 731, 1287, 1750, 2621)),
    ("TP2 x PP2", cell(2, 2), 5.1, (119, 423, 686, 915, 1361)),
    ("PP4", cell(1, 4), None, (64, 218, 347, 461, 685)),
]


@pytest.mark.parametrize(
    ("what", "all_reduce_us", "published"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_worked_example_is_reproduced(
    what: Cell, all_reduce_us: float | None, published: tuple[float, ...]
) -> None:
    got = [limit(what, n, all_reduce_us).tok_s for n in CONCURRENCY]
    assert got == pytest.approx(published, rel=0.02)


def test_peak_without_links_is_reproduced() -> None:
    got = [limit(cell(), n).peak_tok_s for n in CONCURRENCY]
    assert got == pytest.approx((322, 1090, 1732, 2298, 3400), rel=0.02)


def test_break_even_acceptance_is_reproduced() -> None:
    got = [limit(cell(drafts=k), 1, 14.7).break_even for k in range(1, 6)]
    assert got == pytest.approx((1.21, 1.43, 1.64, 1.84, 2.05), rel=0.02)


def test_without_drafts_there_is_no_break_even() -> None:
    assert limit(cell(), 1).break_even is None


def test_the_unconditional_bound_is_the_dense_weights_alone() -> None:
    assert limit(cell(), 1).bound_tok_s == pytest.approx(408, rel=0.01)
    assert limit(cell(drafts=3), 1).bound_tok_s == pytest.approx(4 * 408, rel=0.01)


def test_a_long_context_costs_what_its_cache_weighs() -> None:
    short, long_ = limit(cell(), 1, 0.0, context=1024), limit(cell(), 1, 0.0, context=131_072)
    assert 1 - long_.tok_s / short.tok_s == pytest.approx(0.15, abs=0.05)


def test_acceptance_scales_the_limit_and_is_capped_by_the_drafts() -> None:
    def at(acceptance: float | None) -> float:
        what = cell(drafts=3)
        return speed_of_light(
            what, qwen(), pro6000(), context=1024, concurrency=1, acceptance=acceptance, all_reduce_us=14.7
        ).tok_s

    assert at(2.0) == pytest.approx(at(None) / 2)
    assert at(9.0) == at(None) == at(4.0)


def test_expert_parallel_waits_for_the_fullest_rank() -> None:
    assert experts_per_rank(qwen(), cell(), 1) == pytest.approx(2.5)
    assert experts_per_rank(qwen(), cell(ep=4), 1) == pytest.approx(4, abs=0.2)
    assert limit(cell(ep=4), 1).tok_s < limit(cell(), 1).tok_s


def test_the_largest_term_is_named_with_its_share() -> None:
    found = limit(cell(), 1, 14.7)
    assert found.largest == "dense"
    assert (
        reached(75.0, found).text() == f"{75 / found.tok_s:.0%} of 177 tok/s; largest term dense weights, 54% of a step"
    )
    assert limit(cell(), 128, 14.7).largest == "experts"


def test_ring_all_reduce_on_pcie_is_near_the_measured_times() -> None:
    measured_us = {2: 5.1, 4: 14.9}
    for ranks, us in measured_us.items():
        assert all_reduce_s(pro6000(), ranks, 8192) * 1e6 == pytest.approx(us, rel=0.05)
    assert all_reduce_s(pro6000(), 1, 8192) == 0.0


def test_arithmetic_limits_wide_batches_where_the_rates_are_known() -> None:
    found = board("RTX PRO 6000")
    assert found is not None
    dense = geometry("Qwen/Qwen3-32B")
    assert dense is not None
    one, wide = (speed_of_light(cell(tp=1), dense, found, context=0, concurrency=n) for n in (1, 1024))
    assert one.parts["compute"] == 0
    assert wide.parts["compute"] > 0


def test_assumptions_are_named() -> None:
    told = " | ".join(limit(cell(2, 2, drafts=2), 1).assumptions)
    for words in ("1.792 TB/s", "uniform routing", "one micro-batch", "ring all-reduce", "every draft accepted"):
        assert words in told
    assert "as measured" in " ".join(limit(cell(), 1, 6.4).assumptions)
    assert "all-to-all" in " ".join(limit(cell(ep=4), 1).assumptions)


def test_a_draft_of_unknown_cost_is_said_and_ngram_is_free() -> None:
    assert "cost of drafting is not known" in " ".join(limit(cell(drafts=3, method="eagle3"), 1).assumptions)
    assert limit(cell(drafts=3, method="ngram"), 1).parts["draft"] == 0


@pytest.mark.parametrize(
    ("measured", "finding"), [(75.0, None), (200.0, "above-assumed-limit"), (420.0, "above-speed-of-light")]
)
def test_a_measured_cell_is_held_against_its_limit(measured: float, finding: str | None) -> None:
    share, findings = held_against(measured, limit(cell(), 1, 14.7))
    assert share == pytest.approx(measured / 177, rel=0.02)
    assert [f.id for f in findings] == ([finding] if finding else [])


def test_an_unmeasured_cell_has_no_share() -> None:
    assert held_against(None, limit(cell(), 1)) == (None, ())


def test_a_model_that_fits_the_cache_has_no_unconditional_bound() -> None:
    tiny = replace(qwen(), hidden=256, vocab=1000, heads=4, kv_heads=2, head_dim=64, linear_key_heads=2)
    tiny = replace(tiny, linear_value_heads=4, moe_intermediate=64, shared_intermediate=64, experts=8, top_k=2)
    found = speed_of_light(cell(), tiny, pro6000(), context=128, concurrency=1)
    assert found.bound_tok_s is None
    assert "L2 cache" in " ".join(found.assumptions)
    share, findings = held_against(1e9, found)
    assert share is not None
    assert [f.id for f in findings] == ["above-assumed-limit"]


def test_a_dense_model_reads_no_experts() -> None:
    dense = geometry("Qwen/Qwen3-32B")
    assert dense is not None
    found = speed_of_light(
        replace(cell(tp=1), quantization="bf16", extra_args=()), dense, pro6000(), context=0, concurrency=1
    )
    assert found.parts["experts"] == 0
    assert found.tok_s == pytest.approx(0.8 * 1.792e12 / (2 * dense.active_params()), rel=0.01)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GB200", None),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("", None),
        (None, None),
    ],
)
def test_boards_are_known_by_the_drivers_name(name: str | None, found: str | None) -> None:
    known = board(name)
    assert (known.name if known else None) == found


def test_every_board_has_sources() -> None:
    assert len(names()) >= 10
    assert all((known := board(name)) is not None and known.sources for name in names())


def test_a_declared_machine_goes_before_the_constants() -> None:
    declared = board_of(Hardware(gpu="RTX PRO 6000", bandwidth_gb_s=1700.0, link="none", power_limit_w=450.0))
    assert declared is not None
    assert (declared.bandwidth_gb_s, declared.link, declared.link_gb_s, declared.power_limit_w) == (
        1700.0,
        "none",
        None,
        450.0,
    )
    own = board_of(Hardware(gpu="Something New", bandwidth_gb_s=5000.0, link="nvlink"))
    assert own is not None
    assert own.link_gb_s == 450
    assert board_of(Hardware(gpu="Something New")) is None
