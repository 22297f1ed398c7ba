"""What a report says beside a point: limits, idle GPUs, speculation; over a record as `report` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweeper import views
from sweeper.core.identity import cell_id
from sweeper.core.machinestate import CpuState, PageCache
from sweeper.core.observations import MachineBefore
from sweeper.core.points import Acceptance, DecodePoint, Energy, Quantiles
from sweeper.core.presets import RunFigure
from sweeper.core.values import Cell, Parallelism, Speculative
from sweeper.core.verdicts import Cause, Outcome, Phase, Verdict
from sweeper.insights import board_of_record, enricher, reacher
from sweeper.insights_machine import machine_notes
from sweeper.report.export import as_csv, as_json
from sweeper.report.html import html
from sweeper.report.model import Model
from sweeper.report.text import markdown, text
from sweeper.store.record import RunRecord, TrialRecord
from sweeper.store.rundir import RunDir, append_requests

NONE = Quantiles(mean=None, p50=None, p99=None)
PLAIN = Cell(
    engine="vllm",
    model="nvidia/Qwen3.5-397B-A17B-NVFP4",
    quantization="nvfp4",
    moe_backend="marlin",
    parallelism=Parallelism(tp=4),
)
DRAFTED = replace(PLAIN, speculative=Speculative(method="mtp", tokens=2))


def point(rate: float | None, *, share: float | None = None, length: float | None = None) -> DecodePoint:
    energy = Energy(joules=None, joules_per_1k_tokens=None, mean_w=None, power_share=share)
    return DecodePoint(
        preset="sustained-decode",
        concurrency=1,
        isl=128,
        osl=512,
        decode_tok_s=rate,
        decode_tok_s_per_stream=rate,
        serving_tok_s=None,
        prefill_tok_s=None,
        ttft_ms=NONE,
        itl_ms=NONE,
        chunk_gap_ms=NONE,
        tokens=None,
        tokens_source="usage",
        window_s=None,
        acceptance=Acceptance(rate=(length - 1) / 2, length=length) if length else None,
        server_tok_s=None,
        client_cpu_s=None,
        client_bound=False,
        energy=energy,
    )


def record(points: dict[Cell, DecodePoint], *, gpu: str | None = "NVIDIA RTX PRO 6000 Blackwell") -> RunRecord:
    made = RunRecord(run=RunDir(Path("r")), facts={"host": {"gpus": [{"name": gpu}] if gpu else []}})
    for cell, one in points.items():
        name = cell_id(cell)
        verdict = Verdict(cell_id=name, trial=name, outcome=Outcome.PASS, phase=Phase.STOP, points=(one,))
        made.cells[name] = cell
        made.trials[name] = TrialRecord(trial=name, cell_id=name, attempt=1, verdict=verdict)
    return made


def another_launch(made: RunRecord, cell: Cell, one: DecodePoint) -> None:
    name = cell_id(cell)
    trial = f"{name}-2"
    verdict = Verdict(cell_id=name, trial=trial, outcome=Outcome.PASS, phase=Phase.STOP, points=(one,))
    made.trials[trial] = TrialRecord(trial=trial, cell_id=name, attempt=2, verdict=verdict)


def test_a_cell_shows_its_share_of_the_limit() -> None:
    found = reacher(record({PLAIN: point(75.0)}))(PLAIN, point(75.0))
    assert found is not None
    assert found.text() == "42% of 178 tok/s; largest term dense weights, 54% of a step"
    assert enricher(record({PLAIN: point(75.0)}))(PLAIN, point(75.0)) == ()


def test_an_impossible_figure_is_a_finding() -> None:
    told = enricher(record({PLAIN: point(500.0)}))(PLAIN, point(500.0))
    assert told[0] == (
        "at concurrency 1: 500 tok/s is above the unconditional bound of 408 tok/s (dense weights alone at full "
        "bandwidth): the figure, the geometry or the bandwidth is wrong"
    )


@pytest.mark.parametrize("form", [text, markdown, html, as_json, as_csv])
def test_an_impossible_launch_beside_possible_ones_is_a_finding_in_every_format(form: Callable[[Model], str]) -> None:
    made = record({PLAIN: point(75.0)})
    another_launch(made, PLAIN, point(500.0))
    shown = views.model(made, enricher(made))
    (line,) = shown.tables[0].lines
    assert (line.row.decode_tok_s, line.row.launches) == (75.0, 1)
    said = " ".join(form(shown).split())
    assert "1 of 2 launches did not pass: above-speed-of-light" in said
    assert form is as_csv or "above the unconditional bound of 408 tok/s" in said


def test_a_launch_whose_window_does_not_hold_is_told_beside_those_that_count() -> None:
    made = record({PLAIN: point(75.0)})
    another_launch(made, PLAIN, replace(point(90.0), invalid=("the server counted more",)))
    (line,) = views.model(made, enricher(made)).tables[0].lines
    assert line.row.launches == 1
    name = cell_id(PLAIN)
    assert line.findings == (f"at concurrency 1 launch {name}-2 does not count: the server counted more",)


def test_a_figure_that_cannot_be_takes_no_place() -> None:
    slow = replace(PLAIN, moe_backend="triton")
    made = record({PLAIN: point(500.0), slow: point(75.0)})
    table = views.model(made).tables[0]
    assert [line.cell for line in table.lines] == [slow]
    (out,) = views.model(made).unranked
    assert (out.outcome, out.cause) == ("INCONCLUSIVE", "above-speed-of-light")
    assert "408 tok/s" in out.means


def test_the_gpu_that_is_there_goes_before_the_one_that_is_declared() -> None:
    made = record({PLAIN: point(75.0)}, gpu="NVIDIA H200")
    made.facts["hardware"] = {"gpu": "RTX PRO 6000"}  # type: ignore[index]
    assert board_of_record(made).name == "H200"  # type: ignore[union-attr]
    made.facts["hardware"] = {"gpu": "H200", "link": "none"}  # type: ignore[index]
    assert board_of_record(made).link == "none"  # type: ignore[union-attr]
    unknown = record({}, gpu="NVIDIA Z9000")
    assert board_of_record(unknown) is None


def test_a_server_on_the_cpu_is_not_held_against_the_gpu() -> None:
    on_cpu = replace(PLAIN, env=(("VLLM_CPU_KVCACHE_SPACE", "1"),))
    assert reacher(record({on_cpu: point(75.0)}))(on_cpu, point(75.0)) is None


def test_an_unknown_machine_or_rate_has_no_limit() -> None:
    assert reacher(record({PLAIN: point(75.0)}, gpu=None))(PLAIN, point(75.0)) is None
    assert reacher(record({PLAIN: point(None)}))(PLAIN, point(None)) is None
    assert enricher(record({PLAIN: point(None)}))(PLAIN, point(None)) == ()


def test_a_declared_machine_is_used_without_a_gpu() -> None:
    made = record({PLAIN: point(75.0)}, gpu=None)
    made.facts = {"hardware": {"gpu": "RTX PRO 6000"}}
    assert reacher(made)(PLAIN, point(75.0)) is not None


def test_speculation_is_explained_against_the_paired_cell() -> None:
    drafted = point(39.5, length=2.4)
    told = enricher(record({PLAIN: point(50.5), DRAFTED: drafted}))(DRAFTED, drafted)
    assert told[-1].startswith("mtp2 at concurrency 1: hurts (0.78x): 2.40 tokens a step against a break-even of 3.07")
    assert "its bytes explain 1.4" in told[-1]


def test_what_speculation_did_is_said_of_all_launches_and_not_of_the_last_one() -> None:
    slow, fast = point(39.5, length=2.4), point(61.5, length=2.6)
    made = record({PLAIN: point(50.5), DRAFTED: slow})
    another_launch(made, DRAFTED, fast)
    (told,) = [text for text in enricher(made)(DRAFTED, fast) if text.startswith("mtp2")]
    assert told.startswith("mtp2 at concurrency 1: neither helps nor hurts (1.00x): 2.50 tokens a step")


def test_a_launch_that_cannot_be_is_no_part_of_what_speculation_did() -> None:
    drafted = point(39.5, length=2.4)
    made = record({PLAIN: point(50.5), DRAFTED: drafted})
    another_launch(made, DRAFTED, point(5000.0, length=2.4))
    (told,) = [text for text in enricher(made)(DRAFTED, drafted) if text.startswith("mtp2")]
    assert "hurts (0.78x)" in told


@pytest.mark.parametrize(("reference", "raised"), [(None, True), ("self", False)])
def test_idle_gpus_are_seen_against_the_reference(reference: str | None, raised: bool) -> None:
    slow = replace(PLAIN, moe_backend="triton")
    made = record({PLAIN: point(100.0, share=0.4), slow: point(15.0, share=0.12)}, gpu=None)
    made.reference = cell_id(slow) if reference else None
    told = enricher(made)(slow, point(15.0, share=0.12))
    assert told == (("underutilised: 12% of the power limit at 0.15x the reference speed",) if raised else ())


def test_a_window_that_drifts_is_told_with_its_parts() -> None:
    throttled = replace(point(80.0), series_tok_s=(90.0,) * 12 + (60.0,) * 8)
    made = record({PLAIN: throttled}, gpu=None)
    assert enricher(made)(PLAIN, throttled) == (
        "unsteady at concurrency 1: 90, 90, 90, 60, 60 tok/s in five equal parts of the window, CV 21%",
    )
    steady = replace(throttled, series_tok_s=(90.0,) * 20)
    assert enricher(made)(PLAIN, steady) == ()


@pytest.mark.parametrize(
    ("state", "why", "told"),
    [
        ("fine", None, ()),
        (None, "no NVML", ()),
        ("power cap", None, ("the GPUs ran at their power cap at concurrency 1",)),
        ("invalid", "GPU 0: reset", ("energy at concurrency 1 is not known: GPU 0: reset",)),
    ],
)
def test_what_the_gpus_did_is_a_condition_of_the_figure(
    state: str | None, why: str | None, told: tuple[str, ...]
) -> None:
    energy = Energy(joules=None, joules_per_1k_tokens=None, mean_w=None, power_share=None, state=state, why=why)
    one = replace(point(75.0), energy=energy)
    assert enricher(record({PLAIN: one}, gpu=None))(PLAIN, one) == told


def test_streams_that_are_served_unequally_are_told() -> None:
    unfair = replace(point(300.0), concurrency=4, stream_range_tok_s=(20.0, 120.0))
    made = record({PLAIN: unfair}, gpu=None)
    assert enricher(made)(PLAIN, unfair) == ("streams are served unequally at concurrency 4: 20 to 120 tok/s",)
    assert enricher(made)(PLAIN, replace(unfair, stream_range_tok_s=(70.0, 80.0))) == ()


def test_a_launch_far_from_the_others_is_named_and_kept() -> None:
    made = record({}, gpu=None)
    name = cell_id(PLAIN)
    made.cells[name] = PLAIN
    for n, rate in enumerate((100.0, 101.0, 60.0, 100.5, 99.5)):
        verdict = Verdict(cell_id=name, trial=f"t{n}", outcome=Outcome.PASS, phase=Phase.STOP, points=(point(rate),))
        made.trials[f"t{n}"] = TrialRecord(trial=f"t{n}", cell_id=name, attempt=n, verdict=verdict)
    assert enricher(made)(PLAIN, point(99.5)) == (
        "launch 3 of 5 is an outlier at concurrency 1: 60 tok/s, median 100; it is kept in the mean",
    )


def test_repeated_energy_runs_show_their_spread_and_the_gate(tmp_path: Path) -> None:
    one = replace(point(100.0), preset="energy-e2e", osl=256, energy=Energy(joules=900.0, joules_per_1k_tokens=1170.0,
                  mean_w=117.0, power_share=0.9))  # fmt: skip
    made = record({PLAIN: one}, gpu=None)
    made.run = RunDir(tmp_path)
    runs = [RunFigure(phase="e2e", batch=1, osl=256, seconds=2.5, tokens=256, joules=j) for j in (300.0, 310.0, 290.0)]
    rows = [{"workload": "e2e256-c1", "run": asdict(run)} for run in runs]
    append_requests(made.run.trial(cell_id(PLAIN)) / "requests.jsonl.gz", rows)
    assert enricher(made)(PLAIN, one) == (
        "energy at OSL 256: 1171.9 ± 39.1 J per 1,000 tokens over 3 runs, CV 3.3%: not stable (gate 3%)",
    )


def test_the_phases_of_energy_are_told_apart(tmp_path: Path) -> None:
    one = replace(point(100.0), preset="energy-phases", osl=16, concurrency=8)
    made = record({PLAIN: one}, gpu=None)
    made.run = RunDir(tmp_path)
    prefill = RunFigure(phase="prefill", batch=8, osl=16, seconds=0.04, tokens=1024, joules=12.0, mean_w=300.0,
                        power_share=0.5)  # fmt: skip
    decode = replace(prefill, phase="decode", seconds=0.2, tokens=128, joules=20.0, mean_w=100.0, power_share=None)
    rows = [{"workload": "phases-c8", "run": asdict(run)} for run in (prefill, decode)]
    append_requests(made.run.trial(cell_id(PLAIN)) / "requests.jsonl.gz", rows)
    assert enricher(made)(PLAIN, one) == (
        "energy at batch 8: prefill 12 J a call at 300 W (50% of the limit); "
        "decode 40 J per 32 tokens a stream at 100 W",
    )
    assert enricher(made)(PLAIN, replace(one, concurrency=1)) == ()


def test_the_run_says_once_what_the_machine_did_to_it() -> None:
    unmetered = replace(point(1.0), energy=Energy(joules=None, joules_per_1k_tokens=None, mean_w=None,
                        power_share=None, why="no NVML: Driver Not Loaded"))  # fmt: skip
    made = record({PLAIN: unmetered, DRAFTED: unmetered})
    busy = CpuState(governors=("powersave",), cores=4, busy_cores=3.0)
    for trial, cpu in zip(made.trials.values(), (busy, CpuState(cores=4, busy_cores=0.2)), strict=True):
        trial.observed.append(MachineBefore(cpu=cpu, page_cache=PageCache()))
    assert machine_notes(made) == [
        "before 1 of 2 launches other work kept up to 3.0 of 4 cores busy: time to first token suffers",
        "CPU governor powersave: time to first token varies; mend: sudo cpupower frequency-set -g performance",
        "energy: - (no NVML: Driver Not Loaded)",
    ]
    assert machine_notes(record({PLAIN: point(1.0, share=0.4)})) == []


def test_a_ranked_cell_whose_other_launch_failed_says_so() -> None:
    made = record({PLAIN: point(75.0)}, gpu=None)
    name = cell_id(PLAIN)
    failed = Verdict(cell_id=name, trial=f"{name}-2", outcome=Outcome.FAIL, phase=Phase.SANITY,
                     cause=Cause(id="garbage-output", means=""))  # fmt: skip
    made.trials["2"] = TrialRecord(trial="2", cell_id=name, attempt=2, verdict=failed)
    assert enricher(made)(PLAIN, point(75.0)) == (f"1 of 2 launches did not pass: garbage-output ({name}-2)",)
