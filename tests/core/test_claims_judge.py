"""Comparability and verdicts, on values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sweeper.boards import board
from sweeper.checkpoint import model_geometry
from sweeper.claimdata.load import load_claims
from sweeper.core.claims import NAMES, Claim, Conditions, Figure, Reading, Source
from sweeper.core.claims_compare import fit, same
from sweeper.core.claims_distribution import distribution
from sweeper.core.claims_judge import check
from sweeper.core.claims_limits import limit
from sweeper.core.verdicts import Interval

HERE = Conditions(
    model="m",
    quantization="nvfp4",
    gpu="NVIDIA H200",
    gpus=2,
    engine="vllm",
    moe_backend="marlin",
    tp=2,
    pp=1,
    dp=1,
    ep=1,
    speculative="none",
    draft_tokens=0,
    concurrency=8,
    isl=1000,
    osl=1000,
    engine_version="0.33.0",
    os="linux",
)


def claim(low: float, high: float | None = None, **more: Any) -> Claim:
    conditions = replace(HERE, **{"gpu": "H200", **more.pop("conditions", {})})
    values: dict[str, Any] = {
        "id": "c", "table": "t", "low": low, "high": high or low, "spread": None, "kind": "output", "unit": "tok/s",
        "bound": "exact", "promised": False, "conditions": conditions, "unknown": (),
        "source": Source(title="s", where="w"),
    }  # fmt: skip
    return Claim(**{**values, **more})


def figure(low: float, high: float, **more: Any) -> Figure:
    middle = (low + high) / 2
    reading = Reading(value=middle, interval=Interval(low=low, high=high), launches=3, best=more.pop("best", high))
    key = more.pop("key", ("output", "tok/s"))
    return Figure(label="ours", conditions=replace(HERE, **more), readings={key: reading})


@pytest.mark.parametrize("kind", ["output", "end-to-end", "per-user", "peak"])
def test_tokens_that_the_client_counted_decide_no_claim(kind: Any) -> None:
    ours = replace(figure(98, 102, key=(kind, "tok/s")), counted="tokenizer")
    made = check(claim(100, kind=kind), [ours])
    assert (made.verdict.value, made.difference, made.reading) == ("not comparable", "tokens", None)
    assert "counted by the client's tokenizer" in made.why
    exact = replace(ours, counted="usage")
    assert check(claim(100, kind=kind), [ours, exact]).verdict.value == "met"
    assert distribution(ours, [claim(100)]) is None


@pytest.mark.parametrize(("kind", "told"), [("output", True), ("end-to-end", False)])
def test_a_count_at_the_end_of_a_stream_is_said_where_it_matters_when_tokens_came(kind: Any, told: bool) -> None:
    made = check(claim(100, kind=kind), [replace(figure(98, 102, key=(kind, "tok/s")), counted="final_usage")])
    assert made.verdict.value == "met"
    assert ("at the end of each stream" in made.why) == told
    assert bool(made.caveats) == told


@pytest.mark.parametrize(
    ("claimed", "ours", "bound", "promised", "verdict"),
    [
        ((100, 100), (98, 102), "exact", False, "met"),
        ((100, 100), (94, 95.5), "exact", False, "met"),
        ((100, 100), (92, 94), "exact", False, "below"),
        ((100, 100), (106, 108), "exact", False, "above"),
        ((130, 150), (136, 138), "exact", False, "met"),
        ((130, 150), (92, 94), "exact", True, "not met"),
        ((100, 100), (106, 108), "exact", True, "above"),
        ((100, 100), (80, 82), "up-to", False, "not met"),
        ((100, 100), (120, 125), "up-to", False, "met"),
        ((100, 100), (120, 125), "at-least", False, "met"),
        ((100, 100), (80, 90), "at-least", False, "not met"),
        ((100, 100), (120, 125), "ceiling", False, "not met"),
        ((100, 100), (60, 70), "ceiling", False, "met"),
    ],
)
def test_the_interval_decides(
    claimed: tuple[float, float], ours: tuple[float, float], bound: Any, promised: bool, verdict: str
) -> None:
    made = check(claim(*claimed, bound=bound, promised=promised), [figure(*ours)])
    assert made.verdict.value == verdict


def test_less_energy_than_promised_is_no_failure() -> None:
    key = ("energy", "J/1k tok")
    promise = claim(2700, kind="energy", unit="J/1k tok", promised=True)
    assert check(promise, [figure(2000, 2010, key=key)]).verdict.value == "met"
    assert check(promise, [figure(3000, 3010, key=key)]).verdict.value == "not met"


def test_up_to_is_held_against_the_best_window() -> None:
    made = check(claim(100, bound="up-to"), [figure(80, 82, best=99.0)])
    assert made.verdict.value == "met"
    assert "best window 99" in made.why


def test_two_standard_deviations_of_the_source_count_as_met() -> None:
    assert check(claim(100, spread=8.0), [figure(85, 87)]).verdict.value == "met"
    assert check(claim(100, spread=1.0), [figure(85, 87)]).verdict.value == "below"


DIFFERENT: dict[str, Any] = {
    "model": "other", "quantization": "fp8", "gpu": "H100", "gpus": 4, "mig": True, "engine": "sglang",
    "moe_backend": "cutlass", "tp": 4, "pp": 2, "dp": 2, "ep": 2, "speculative": "mtp", "concurrency": 1, "isl": 128,
    "osl": 64, "engine_version": "0.32.0", "os": "wsl2",
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_any_other_condition_is_not_comparable_and_is_named(name: str) -> None:
    conditions = {name: DIFFERENT[name], **({"draft_tokens": 2} if name == "speculative" else {})}
    ours = figure(98, 102, mig=False) if name == "mig" else figure(98, 102)
    made = check(claim(300, conditions=conditions), [ours])
    assert (made.verdict.value, made.difference) == ("not comparable", name)


def test_the_first_of_several_differences_is_named() -> None:
    made = check(claim(300, conditions={"os": "wsl2", "concurrency": 1, "engine": "sglang"}), [figure(98, 102)])
    assert made.difference == "engine"


@pytest.mark.parametrize("name", ["model", "gpu", "gpus", "quantization", "speculative", "concurrency"])
def test_what_always_matters_is_asked_for_even_when_not_listed(name: str) -> None:
    made = check(claim(300, conditions={name: None}), [figure(98, 102)])
    assert made.verdict.value == "unknown condition"
    assert len(made.ask) == 1


def test_a_minor_unknown_is_a_caveat() -> None:
    made = check(claim(100, conditions={"os": None}, unknown=("os", "thinking")), [figure(98, 102)])
    assert made.verdict.value == "met"
    assert "the source does not state operating system" in made.caveats


def test_a_retracted_claim_says_so() -> None:
    assert check(claim(100, retracted="by its author"), [figure(98, 102)]).why.endswith("retracted: by its author")


def test_the_best_of_several_cells_has_to_reach_a_claim_without_a_backend() -> None:
    free = claim(100, conditions={"moe_backend": None}, promised=True)
    slow, fast = figure(50, 51, moe_backend="cutlass"), figure(99, 101)
    assert check(free, [slow, fast]).verdict.value == "met"


def test_a_cell_named_after_the_row_is_the_one_that_counts() -> None:
    worst = claim(26, conditions={"moe_backend": "cutlass", "engine_version": None}, row="CUTLASS, worst")
    best, named = (
        figure(40, 41, moe_backend="cutlass"),
        figure(25.5, 26, moe_backend="cutlass", engine_version="0.17.1"),
    )
    assert check(worst, [best, replace(named, name="CUTLASS, worst")]).verdict.value == "met"


def test_nothing_measured_is_said_so() -> None:
    assert check(claim(100), []).verdict.value == "not measured"


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        (200, "a total is quoted as output: 200 tok/s of input and output together is 100.0 tok/s of output"),
        (12.5, "one stream is quoted as the sum"),
        (800, "multiplied by the streams again"),
        (40, "chunks were counted as tokens"),
    ],
)
def test_a_wrong_label_is_recognised(claimed: float, words: str) -> None:
    ours = figure(99, 101, speculative="mtp", draft_tokens=3, acceptance_length=2.5)
    made = check(claim(claimed, conditions={"speculative": "mtp", "draft_tokens": 3}), [ours])
    assert made.verdict.value == "mislabelled"
    assert words in made.why


@pytest.mark.parametrize(
    ("name", "claimed", "ours", "alike"),
    [
        ("gpu", "RTX PRO 6000 Blackwell", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", True),
        ("gpu", "RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", False),
        ("gpu", "RTX PRO 6000 Blackwell", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", False),
        ("gpu", "H100", "NVIDIA H100 PCIe", False),
        ("gpu", "B200", "NVIDIA H200", False),
        ("engine_version", "0.17", "0.17.1", True),
        ("engine_version", "0.17.0rc1", "0.17.0", False),
        ("engine_version", "0.1", "0.17", False),
        ("moe_backend", "auto", "auto (marlin)", True),
        ("moe_backend", "marlin", "auto (marlin)", True),
        ("moe_backend", "marlin", "marlin (asked cutlass)", True),
        ("moe_backend", "cutlass", "marlin (asked cutlass)", False),
        ("moe_backend", "flashinfer-cutlass", "flashinfer_cutlass", True),
        ("moe_backend", "flashinfer_cutlass", "cutlass", False),
        ("speculative", "nextn", "mtp", True),
        ("speculative", "none", "mtp", False),
        ("isl", 128, 141, True),
        ("isl", 128, 256, False),
        ("context", 131072, 130000, True),
        ("context", 131072, 82000, False),
        ("quantization", "fp8", "fp8-block", True),
        ("quantization", "fp8-dynamic", "fp8-block", False),
        ("image", "verdictai/vllm-blackwell-k64", "verdictai/vllm-blackwell-k64:latest", True),
        ("image", "verdictai/vllm-blackwell-k64", "vllm/vllm-openai:v0.19.1", False),
    ],
)
def test_when_two_spellings_are_one_condition(name: str, claimed: object, ours: object, alike: bool) -> None:
    assert same(name, claimed, ours) is alike


SHIPPED = {one.id: one for one in load_claims()}


def shipped_limit(name: str) -> Any:
    one = SHIPPED[name]
    return limit(one, model_geometry(one.conditions.model or ""), board(one.conditions.gpu))


def test_the_dense_bound_needs_no_assumption() -> None:
    found = shipped_limit("inferencex-tp4-c1-total.quoted-as-output")
    assert found.unconditional
    assert "(408 tok/s); no assumption is needed" in found.broken


def test_the_bound_with_routed_experts_names_its_assumption() -> None:
    found = shipped_limit("lda-k64-282.no-mtp")
    assert not found.unconditional
    assert "assumed:" in found.broken


def test_no_figure_that_independent_sources_agree_on_is_called_impossible() -> None:
    broken = {name for name in SHIPPED if (found := shipped_limit(name)) is not None and found.broken}
    assert broken == {
        "p1-weights", "lda-k64-282.no-mtp", "inferencex-tp4-c1-total.quoted-as-output",
        "inferencex-tep4-c1-total.quoted-as-output",
    }  # fmt: skip


def test_what_was_measured_beats_the_assumed_limit() -> None:
    one = SHIPPED["lda-k64-282.no-mtp"]
    own = replace(one.conditions, engine_version="0.17.0")
    reading = Reading(value=281.0, interval=Interval(low=280.0, high=282.0), launches=3)
    made = check(one, [Figure(label="ours", conditions=own, readings={("output", "tok/s"): reading})],
                 shipped_limit(one.id))  # fmt: skip
    assert made.verdict.value == "met"
    assert any("check the limit" in caveat for caveat in made.caveats)


def test_every_shipped_rate_is_met_by_its_own_figure_under_its_own_conditions() -> None:
    for one in SHIPPED.values():
        if one.kind != "output":
            continue
        reading = Reading(value=(one.low + one.high) / 2)
        ours = Figure(label="ours", conditions=one.conditions, readings={("output", "tok/s"): reading})
        made = check(one, [ours], None)
        expected = "unknown condition" if fit(one, one.conditions).unstated else "met"
        assert made.verdict.value == expected, (one.id, made.why)


def test_the_distribution_leaves_out_other_settings_readings_and_retellings() -> None:
    ours = figure(95, 105)
    others = [
        claim(90, id="same"), claim(110, id="other-engine", conditions={"engine": "sglang", "moe_backend": "b12x"}),
        claim(20, id="one-stream", conditions={"concurrency": 1}), claim(300, id="promise", promised=True),
        claim(300, id="reading", reading_of="x"), claim(90, id="again", same_as="same"),
        claim(300, id="drafts", conditions={"speculative": "mtp", "draft_tokens": 2}),
        claim(300, id="total", kind="total"), claim(300, id="taken-back", retracted="yes"),
    ]  # fmt: skip
    found = distribution(ours, others)
    assert found is not None
    assert [one.id for one in found.claims] == ["same", "other-engine"]
    assert (found.middle(), found.below()) == (100.0, 1)


def test_conditions_are_compared_in_the_order_of_their_weight() -> None:
    assert NAMES.index("model") < NAMES.index("gpu") < NAMES.index("engine") < NAMES.index("speculative")
    assert fit(claim(1), HERE).difference is None
