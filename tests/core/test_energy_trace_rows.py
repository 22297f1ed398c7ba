"""Edges of the window judgement that no recorded trace covers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.core.energy import integrate, judge_window, said_by_the_machine
from sweeper.core.gputrace import GpuFacts, GpuSample, GpuTrace, from_rows, to_rows, traces_of_rows


def board(*samples: GpuSample, window: tuple[float, float] = (0.0, 10.0), limit: float | None = 600.0) -> GpuTrace:
    return GpuTrace(gpus=(GpuFacts(gpu="0", power_limit_w=limit),), samples=samples, window_s=window)


def steady(**more: object) -> tuple[GpuSample, ...]:
    return tuple(
        GpuSample(t_s=k / 10, gpu=0, power_w=100.0, energy_mj=k * 10_000, **more)  # type: ignore[arg-type]
        for k in range(101)
    )


def test_no_meter_keeps_its_reason_and_its_idle_power() -> None:
    seen = judge_window(GpuTrace(why="no NVML: Driver Not Loaded", tokens=5, idle_w=30.0))
    assert seen.energy.why == "no NVML: Driver Not Loaded"
    assert (seen.energy.joules, seen.energy.idle_w, seen.energy.state) == (None, 30.0, None)
    assert judge_window(GpuTrace()).energy.why == "no GPU belongs to this cell"


def test_a_board_without_a_limit_has_no_power_share() -> None:
    energy = judge_window(board(*steady(reasons=0), limit=None)).energy
    assert energy.mean_w == pytest.approx(100, rel=0.01)
    assert energy.power_share is None


def test_a_sampler_that_stalls_at_the_end_of_a_window_does_not_bend_its_energy() -> None:
    times = [k / 20 for k in range(196)] + [9.98, 10.01, 10.06, 10.09]
    samples = [GpuSample(t_s=t, gpu=0, power_w=100.0, energy_mj=int(t * 10) * 10_000, reasons=0) for t in times]
    energy = judge_window(board(*samples, window=(0.02, 10.09))).energy
    assert energy.joules == pytest.approx(1007, rel=0.008)


def test_a_rare_reason_does_not_name_the_window() -> None:
    samples = list(steady(reasons=0))
    samples[50] = GpuSample(t_s=5.0, gpu=0, power_w=100.0, energy_mj=500_000, reasons=0x04)
    seen = judge_window(board(*samples))
    assert seen.energy.state == "fine"
    assert seen.power_cap_share == pytest.approx(1 / 101)


def test_a_cell_of_two_gpus_is_unknown_when_one_is() -> None:
    trace = GpuTrace(
        gpus=(GpuFacts(gpu="0", power_limit_w=600.0), GpuFacts(gpu="1", power_limit_w=600.0)),
        samples=steady(reasons=0),
        window_s=(0.0, 10.0),
    )
    energy = judge_window(replace(trace, tokens=10)).energy
    assert (energy.joules, energy.mean_w, energy.state) == (None, None, "invalid")
    assert "GPU 1" in (energy.why or "")


def test_an_empty_window_divides_by_nothing() -> None:
    seen = judge_window(replace(board(*steady(), window=(5.0, 5.0)), tokens=10))
    assert (seen.seconds, seen.samples_per_s, seen.energy.mean_w) == (0.0, None, None)


def test_memory_peak_is_per_gpu_and_then_summed() -> None:
    trace = GpuTrace(
        gpus=(GpuFacts(gpu="0"), GpuFacts(gpu="1")),
        samples=tuple(
            GpuSample(t_s=float(t), gpu=g, used_bytes=used)
            for t, g, used in [(1, 0, 10), (2, 0, 30), (1, 1, 25), (2, 1, 5)]
        ),
        window_s=(0.0, 3.0),
    )
    assert judge_window(trace).memory_peak_bytes == 55


def test_power_is_integrated_by_trapezoids_to_the_edges() -> None:
    ramp = [(t / 10, 10.0 * t) for t in range(101)]
    assert integrate(ramp, (0.0, 10.0)) == (pytest.approx(5000.0), None)
    assert integrate(ramp, (2.0, 4.0)) == (pytest.approx(600.0), None)
    assert integrate(ramp[:1], (0.0, 1.0)) == (None, None)
    joules, gap = integrate([(0.0, 1.0), (9.0, 1.0)], (0.0, 9.0))
    assert joules is None
    assert gap == pytest.approx(9.0)


def test_rows_and_back() -> None:
    trace = replace(board(*steady(reasons=4, pids=(1, 2))), strangers=(9,), idle_w=31.5, tokens=77, own_pids=(1,))
    assert from_rows(to_rows(trace)) == trace


def test_several_windows_share_a_file_and_a_broken_row_is_counted_in_it() -> None:
    windows = [board(*steady()[:3]), board(*steady()[3:5])]
    rows = [row for window in windows for row in to_rows(window)]
    assert traces_of_rows(rows) == windows
    rows[5] = {"t": 1.0, "gpu": 4}
    with pytest.raises(ValueError, match="row 6: GPU 4"):
        traces_of_rows(rows)


def with_pids(*per_second: tuple[int, ...], **more: object) -> GpuTrace:
    samples = tuple(GpuSample(t_s=float(t), gpu=0, power_w=1.0, pids=pids) for t, pids in enumerate(per_second))
    return replace(board(*samples), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trace", "foreign"),
    [
        (with_pids((7, 8), (7, 8), own_pids=(7, 8, 9)), ()),
        (with_pids((7, 31), (7, 31), own_pids=(7,)), (31,)),
        (with_pids((7,), (7, 31), own_pids=(7,)), (31,)),
        (with_pids((7,), (7, 31)), (31,)),
        (with_pids((7, 31), (7, 31)), ()),
        (with_pids((7, 31), (7, 31), strangers=(31,)), (31,)),
        (with_pids((7, 31), (7, 31), own_pids=(1007,)), ()),
        (with_pids((7, 31), (7, 31, 32), own_pids=(1007,), strangers=(31,)), (31, 32)),
        (with_pids((7,), (7,), own_pids=(7,), strangers=(31,)), ()),
    ],
    ids=[
        "all are the cell's",
        "a stranger beside the cell's",
        "a newcomer",
        "a newcomer, owners unknown",
        "nobody knows",
        "there before the launch",
        "pids of another namespace",
        "another namespace, one before and one new",
        "a stranger that left",
    ],
)
def test_foreign_processes_are_told_from_the_cells_own(trace: GpuTrace, foreign: tuple[int, ...]) -> None:
    seen = judge_window(trace)
    assert seen.foreign_pids == foreign
    assert [said_by_the_machine(cause) for cause in seen.invalid] == [True] * bool(foreign)
