"""Recorded GPU traces through the judgement: the right verdict each time."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.core.energy import MachineWindow, judge_window
from sweeper.core.errors import BadFile
from sweeper.probes.machine import read_traces, write_traces

TRACES = Path(__file__).parent / "gpu_traces"
TRUE_J = 4800.0
"""400 W over 12 s."""


def judged(name: str, tokens: int | None = 1000, idle_w: float | None = None) -> MachineWindow:
    (trace,) = read_traces(TRACES / f"{name}.jsonl.gz")
    return judge_window(replace(trace, tokens=tokens, idle_w=idle_w))


def test_a_steady_window_is_fine_and_complete() -> None:
    seen = judged("steady", idle_w=31.0)
    assert seen.energy.state == "fine"
    assert seen.energy.joules == pytest.approx(TRUE_J, rel=0.01)
    assert seen.energy.joules_per_1k_tokens == pytest.approx(TRUE_J, rel=0.01)
    assert seen.energy.mean_w == pytest.approx(400, rel=0.01)
    assert seen.energy.power_share == pytest.approx(400 / 600, rel=0.01)
    assert seen.energy.idle_w == 31.0
    assert seen.energy.why is None
    assert seen.invalid == ()
    assert (seen.sm_mhz, seen.mem_mhz, seen.temp_c) == ((2400, 2400), (13365, 13365), (60, 66))
    assert seen.memory_peak_bytes == pytest.approx(80 * 2**30, rel=0.001)
    assert seen.samples_per_s == pytest.approx(10, rel=0.05)


def test_a_window_recorded_on_a_gpu_is_fine_and_keeps_its_energy() -> None:
    (trace,) = read_traces(TRACES / "recorded-h200.jsonl.gz")
    seen = judge_window(trace)
    assert (seen.energy.state, seen.energy.why, seen.invalid) == ("fine", None, ())
    assert seen.energy.joules == pytest.approx(3213.0, rel=1e-3)
    assert seen.energy.joules_per_1k_tokens == pytest.approx(393.8, rel=1e-3)
    assert seen.energy.mean_w == pytest.approx(536.7, rel=1e-3)
    assert seen.energy.power_share == pytest.approx(0.7667, rel=1e-3)
    assert (seen.sm_mhz, seen.mem_mhz, seen.temp_c) == ((1980, 1980), (3201, 3201), (34, 42))


def test_energy_is_the_sum_over_the_cells_gpus_and_the_share_is_not() -> None:
    seen = judged("two-gpus")
    assert seen.energy.joules == pytest.approx(2 * TRUE_J, rel=0.01)
    assert seen.energy.power_share == pytest.approx(400 / 600, rel=0.01)


@pytest.mark.parametrize(
    ("name", "state", "cause"),
    [
        ("power-cap", "power cap", None),
        ("thermal-software", "thermal", "thermal slowdown in 33%"),
        ("thermal-hardware", "thermal", "thermal slowdown in 17%"),
        ("power-brake", "hardware slowdown", "hardware slowdown in 16%"),
        ("slowdown-without-cause", "hardware slowdown", "hardware slowdown in 50%"),
        ("no-reasons", None, None),
        ("foreign-process", "invalid", "pid 31337"),
        ("foreign-process-owner-unknown", "invalid", "pid 31337"),
        ("foreign-process-before-the-launch", "invalid", "pid 31337"),
        ("pids-of-another-namespace", "fine", None),
    ],
)
def test_state_of_the_window(name: str, state: str | None, cause: str | None) -> None:
    seen = judged(name)
    assert seen.energy.state == state
    assert bool(seen.invalid) == (cause is not None)
    if cause:
        assert cause in seen.invalid[0]
        assert cause in (seen.energy.why or "")


@pytest.mark.parametrize("name", ["steady", "missing-counter", "wrap-32-bit", "short-window"])
def test_energy_is_right_whatever_the_counter_did(name: str) -> None:
    seen = judged(name)
    assert seen.energy.joules == pytest.approx(400 * seen.seconds, rel=0.025)
    assert seen.energy.state == "fine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("counter-jump", "jumped by"),
        ("small-jump", "integrated power"),
        ("counter-reset", "went back"),
        ("counter-frozen", "did not advance"),
        ("counter-off-by-half", "apart"),
        ("sampling-gap", "no sample for 4.0 s"),
        ("nothing", "neither an energy counter nor power readings"),
    ],
)
def test_a_counter_that_cannot_be_right_gives_no_energy(name: str, why: str) -> None:
    energy = judged(name).energy
    assert (energy.joules, energy.joules_per_1k_tokens, energy.mean_w, energy.power_share) == (None, None, None, None)
    assert energy.state == "invalid"
    assert why in (energy.why or "")


def test_a_missing_counter_is_said() -> None:
    assert "no energy counter" in (judged("missing-counter").energy.why or "")


def test_a_window_too_short_for_the_counter_falls_back_to_instant_power_only() -> None:
    assert "20 update periods" in (judged("short-window").energy.why or "")
    assert judged("short-window-mean-power").energy.joules is None


def test_a_one_second_mean_of_the_power_does_not_condemn_the_counter_of_a_short_window() -> None:
    energy = judged("mean-power-lags").energy
    assert energy.joules == pytest.approx(2400, rel=0.01)
    assert "one-second mean" in (energy.why or "")


def test_a_counter_without_power_readings_is_used_and_said_to_be_unchecked() -> None:
    energy = judged("no-power").energy
    assert energy.joules == pytest.approx(TRUE_J, rel=0.01)
    assert "no power readings" in (energy.why or "")


def test_no_tokens_gives_no_energy_per_token() -> None:
    assert judged("steady", tokens=None).energy.joules_per_1k_tokens is None
    assert judged("steady", tokens=0).energy.joules_per_1k_tokens is None


def test_a_trace_survives_the_file(tmp_path: Path) -> None:
    traces = [*read_traces(TRACES / "foreign-process.jsonl.gz"), *read_traces(TRACES / "two-gpus.jsonl.gz")]
    for name in ("t.jsonl", "t.jsonl.gz"):
        write_traces(tmp_path / name, traces)
        assert read_traces(tmp_path / name) == traces


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}\n", "row 1: not the header"),
        ('{"kind":"gpu-trace","schema":9}\n', "row 1: schema 9"),
        ('{"kind":"gpu-trace","schema":1,"gpus":[]}\n', "row 1"),
        ('{"kind":"gpu-trace","schema":1,"gpus":[{"gpu":"0"}],"window_s":[0,1]}\n{"t":0,"gpu":3}\n', "row 2: GPU 3"),
        ('{"kind":"gpu-trace","schema":1,"gpus":[{"gpu":"0"}],"window_s":[0,1]}\n{"gpu":0}\n', "row 2"),
        ('{"kind"', "not JSON"),
        ("[1]\n", "t.jsonl"),
    ],
)
def test_a_broken_trace_file_names_its_row(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(BadFile, match=problem):
        read_traces(path)


def test_a_missing_or_torn_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"gone\.jsonl"):
        read_traces(tmp_path / "gone.jsonl")
    torn = tmp_path / "torn.jsonl.gz"
    whole = gzip.compress(b"{}" * 100)
    for data in (whole[:-12], whole[:10] + b"\xff" * 20):
        torn.write_bytes(data)
        with pytest.raises(BadFile, match=r"torn\.jsonl"):
            read_traces(torn)
