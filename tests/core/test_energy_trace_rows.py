"""Edges of the window judgement that no recorded trace covers."""

from __future__ import annotations

import pytest

from sweeper.core.energy import integrate, judge_window
from sweeper.core.gputrace import GpuFacts, GpuSample, GpuTrace, from_rows, to_rows


def board(*samples: GpuSample, window: tuple[float, float] = (0.0, 10.0), limit: float | None = 600.0) -> GpuTrace:
    return GpuTrace(gpus=(GpuFacts(gpu="0", power_limit_w=limit),), samples=samples, window_s=window)


def steady(**more: object) -> tuple[GpuSample, ...]:
    return tuple(
        GpuSample(t_s=k / 10, gpu=0, power_w=100.0, energy_mj=k * 10_000, **more)  # type: ignore[arg-type]
        for k in range(101)
    )


def test_no_meter_keeps_its_reason_and_its_idle_power() -> None:
    seen = judge_window(GpuTrace(why="no NVML: Driver Not Loaded"), tokens=5, idle_w=30.0)
    assert seen.energy.why == "no NVML: Driver Not Loaded"
    assert (seen.energy.joules, seen.energy.idle_w, seen.energy.state) == (None, 30.0, None)
    assert judge_window(GpuTrace()).energy.why == "no GPU belongs to this cell"


def test_a_board_without_a_limit_has_no_power_share() -> None:
    energy = judge_window(board(*steady(reasons=0), limit=None)).energy
    assert energy.mean_w == pytest.approx(100, rel=0.01)
    assert energy.power_share is None


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
    energy = judge_window(trace, tokens=10).energy
    assert (energy.joules, energy.mean_w, energy.state) == (None, None, "invalid")
    assert "GPU 1" in (energy.why or "")


def test_an_empty_window_divides_by_nothing() -> None:
    seen = judge_window(board(*steady(), window=(5.0, 5.0)), tokens=10)
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
    trace = board(*steady(reasons=4, pids=(1, 2)))
    assert from_rows(to_rows(trace)) == trace
