"""What speculation did to a cell, on the published measurements of one machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.core.mtp import mtp_effect, paired_cell
from sweeper.core.points import Acceptance, DecodePoint, Quantiles
from sweeper.core.values import Cell, Speculative

NONE = Quantiles(mean=None, p50=None, p99=None)


def point(rate: float | None, length: float | None = None, drafts: int = 3, concurrency: int = 1) -> DecodePoint:
    accepted = (
        None if length is None else Acceptance(rate=(length - 1) / drafts, length=length, drafts=100, draft_tokens=300)
    )
    return DecodePoint(
        preset="sustained-decode",
        concurrency=concurrency,
        isl=128,
        osl=512,
        decode_tok_s=rate,
        decode_tok_s_per_stream=None,
        serving_tok_s=None,
        prefill_tok_s=None,
        ttft_ms=NONE,
        itl_ms=NONE,
        chunk_gap_ms=NONE,
        tokens=None,
        tokens_source="usage",
        window_s=None,
        acceptance=accepted,
        server_tok_s=None,
        client_cpu_s=None,
        client_bound=False,
    )


def test_a_helping_draft() -> None:
    effect = mtp_effect(point(161.0, 2.8), point(74.0), drafts=3, model_break_even=1.64)
    assert effect.speedup == pytest.approx(2.18, abs=0.01)
    assert effect.break_even == pytest.approx(2.8 / 2.18, rel=0.01)
    assert effect.steps_s == pytest.approx(57.5)
    assert effect.plain_steps_s == 74.0
    assert effect.sentence.startswith("helps (2.18x): 2.80 tokens a step against a break-even of 1.29; ")


def test_steps_without_drafts_make_a_step_cheaper_and_poorer_than_the_counters_of_drafts_say() -> None:
    """Seen with n-grams on a CPU: 161 drafts in 1,446 steps for 1,536 tokens, chunks of 1.064 tokens on average."""
    own = point(354.3, 1.559, concurrency=2)
    assert own.acceptance is not None
    own = replace(own, acceptance=replace(own.acceptance, per_step=1536 / 1446))
    effect = mtp_effect(own, point(416.0, concurrency=2), drafts=3, model_break_even=1.6)
    assert effect.steps_s == pytest.approx(166.8, abs=0.1)
    assert effect.break_even == pytest.approx(1.25, abs=0.01)
    assert effect.sentence == (
        "hurts (0.85x): 1.06 tokens a step against a break-even of 1.25; "
        "a step (11 % of them with drafts) costs 1.25 plain steps and yields no more"
    )


def test_drafts_in_every_step_are_told_as_such() -> None:
    own = point(161.0, 2.8)
    assert own.acceptance is not None
    counted = replace(own, acceptance=replace(own.acceptance, per_step=2.79))
    plain = point(74.0)
    assert mtp_effect(counted, plain, drafts=3).sentence == mtp_effect(own, plain, drafts=3).sentence


def test_a_hurting_draft_with_slow_steps_blames_the_steps() -> None:
    effect = mtp_effect(point(39.5, 2.4, drafts=2), point(50.5), drafts=2, model_break_even=1.43)
    assert effect.speedup == pytest.approx(0.78, abs=0.01)
    assert effect.sentence.startswith("hurts (0.78x): 2.40 tokens a step against a break-even of 3.07; ")
    assert effect.sentence.endswith("a step costs 3.07 plain steps where its bytes explain 1.43")


def test_a_hurting_draft_with_low_acceptance_blames_the_acceptance() -> None:
    effect = mtp_effect(point(40.0, 1.2), point(50.0), drafts=3, model_break_even=1.64)
    assert "too few drafts are accepted" in effect.sentence


def test_without_a_model_the_sentence_keeps_to_what_was_measured() -> None:
    assert "yields no more" in mtp_effect(point(40.0, 1.2), point(50.0), drafts=3).sentence


def test_a_difference_inside_the_noise_is_called_neither() -> None:
    assert mtp_effect(point(50.5, 2.0), point(50.0), drafts=3).sentence.startswith("neither helps nor hurts (1.01x)")


def test_many_streams_are_compared_per_stream() -> None:
    effect = mtp_effect(point(800.0, 2.0, concurrency=8), point(500.0, concurrency=8), drafts=3)
    assert (effect.steps_s, effect.plain_steps_s, effect.speedup) == (50.0, 62.5, 1.6)


@pytest.mark.parametrize("plain", [None, point(None)])
def test_no_paired_figure_leaves_the_effect_open(plain: DecodePoint | None) -> None:
    effect = mtp_effect(point(161.0, 2.8), plain, drafts=3, model_break_even=1.64)
    assert (effect.speedup, effect.break_even) == (None, None)
    assert "no cell without drafts" in effect.sentence
    assert "1.64" in effect.sentence


def test_unmeasured_acceptance_is_said() -> None:
    effect = mtp_effect(point(161.0), point(74.0), drafts=3)
    assert effect.speedup == pytest.approx(2.18, abs=0.01)
    assert effect.break_even is None
    assert effect.sentence.startswith("acceptance was not measured")


def test_the_paired_cell_differs_in_speculation_alone() -> None:
    plain = Cell(engine="vllm", model="m", moe_backend="marlin", name="winner")
    fast = replace(plain, speculative=Speculative(method="mtp", tokens=2), name="winner with mtp")
    others = [("x", replace(plain, moe_backend="cutlass")), ("p", plain)]
    assert paired_cell(fast, others) == "p"
    assert paired_cell(fast, others[:1]) is None
    assert paired_cell(plain, others) is None
