"""Energy over runs, and the finding of idle GPUs, against the published tables they reproduce."""

from __future__ import annotations

import pytest

from sweeper.core.energyruns import energy_over_runs, total_energy, underutilised
from sweeper.core.points import Energy

LIMIT_W = 600.0


def reading(joules: float | None, *, state: str | None = "fine", why: str | None = None) -> Energy:
    return Energy(joules=joules, joules_per_1k_tokens=None, mean_w=100.0, power_share=0.2, state=state, why=why)


def test_repetitions_add_up_and_the_worst_state_names_them() -> None:
    total = total_energy([reading(10.0), reading(30.0, state="power cap", why="capped"), reading(20.0)], 500)
    assert (total.joules, total.joules_per_1k_tokens, total.mean_w) == (60.0, 120.0, 100.0)
    assert (total.state, total.why) == ("power cap", "capped")


def test_a_repetition_without_energy_leaves_the_total_unknown_and_says_why() -> None:
    total = total_energy([reading(10.0), reading(None, why="the counter jumped")], 500)
    assert (total.joules, total.why) == (None, "the counter jumped")
    assert total_energy([], 0).why == "no run"


def test_published_runs_pass_or_miss_the_gate() -> None:
    # Ten runs with the mean and SD of the published 256- and 512-token rows.
    spread = [-1.5, -1.0, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1.0, 1.5]
    unit = energy_over_runs([100 + s for s in spread])
    assert unit is not None
    assert unit.sd is not None
    short = energy_over_runs([2660.83 + 124.87 * s / unit.sd for s in spread])
    long = energy_over_runs([2709.67 + 38.22 * s / unit.sd for s in spread])
    assert short is not None
    assert long is not None
    assert (short.mean, short.sd, short.cv) == pytest.approx((2660.83, 124.87, 0.047), rel=0.01)
    assert (short.stable, long.stable) == (False, True)
    assert long.cv == pytest.approx(0.014, rel=0.01)


def test_one_run_has_no_spread_and_none_has_no_mean() -> None:
    one = energy_over_runs([2700.0])
    assert one is not None
    assert (one.mean, one.sd, one.cv, one.stable) == (2700.0, None, None, None)
    assert energy_over_runs([]) is None


# Published rows: (precision, batch, J per 32 tokens and sequence group, tok/s, speed ratio to FP16).
# Decode power = J * tok/s / (32 * batch).
ROWS = [
    ("FP16", 1, 42.737, 105.26, 1.00),
    ("INT8", 1, 135.724, 15.79, 0.15),
    ("NF4", 1, 71.281, 41.10, 0.39),
    ("FP16", 8, 48.156, 789.97, 1.00),
    ("INT8", 8, 154.507, 112.77, 0.14),
    ("NF4", 8, 133.460, 244.35, 0.31),
    ("FP16", 1, 73.191, 80.74, 1.00),
    ("INT8", 1, 186.035, 12.30, 0.15),
    ("NF4", 1, 108.622, 31.71, 0.39),
    ("FP16", 8, 81.280, 636.22, 1.00),
    ("INT8", 8, 212.776, 86.55, 0.14),
    ("NF4", 8, 234.826, 188.79, 0.30),
    ("FP16", 8, 116.080, 617.32, 1.00),
    ("INT8", 8, 218.745, 99.99, 0.16),
    ("NF4", 8, 365.331, 222.80, 0.36),
]


@pytest.mark.parametrize(("precision", "batch", "joules", "tok_s", "ratio"), ROWS)
def test_underutilised_is_raised_for_the_int8_rows_alone(
    precision: str, batch: int, joules: float, tok_s: float, ratio: float
) -> None:
    watts = joules * tok_s / (32 * batch)
    found = underutilised(power_share=watts / LIMIT_W, tok_s=tok_s, reference_tok_s=tok_s / ratio)
    assert (found is not None) == (precision == "INT8")


def test_the_finding_carries_its_numbers() -> None:
    found = underutilised(power_share=0.12, tok_s=15.0, reference_tok_s=100.0)
    assert found is not None
    assert found.id == "underutilised"
    assert found.text == "underutilised: 12% of the power limit at 0.15x the reference speed"


@pytest.mark.parametrize(
    ("share", "tok_s", "reference"), [(None, 1.0, 9.0), (0.1, None, 9.0), (0.1, 1.0, None), (0.1, 1.0, 0.0)]
)
def test_underutilised_needs_all_three_figures(
    share: float | None, tok_s: float | None, reference: float | None
) -> None:
    assert underutilised(power_share=share, tok_s=tok_s, reference_tok_s=reference) is None
