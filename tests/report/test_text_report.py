"""The report as a person reads it in a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report import runs

from sweeper.core.points import Quantiles
from sweeper.report.text import text

WIDTHS = (40, 60, 80, 100, 200)


def table_of(shown: str) -> list[str]:
    """Header, rule and rows of the first table."""
    lines = shown.splitlines()
    rule = next(n for n, line in enumerate(lines) if line.startswith("---"))
    first = next(n for n in range(rule, 0, -1) if lines[n].startswith("place"))
    last = next(n for n in range(rule, len(lines)) if lines[n].startswith(("?", "=", "not ")) or not lines[n])
    return lines[first:last]


@pytest.mark.parametrize("wide", WIDTHS)
def test_the_rate_stays_at_every_width_and_no_line_is_wider_than_the_terminal(wide: int) -> None:
    shown = text(runs.mixed(), width=wide)
    rows = [line for line in table_of(shown) if line[:1].isdigit()]
    assert [row.split()[0] for row in rows] == ["1?", "2?"]
    assert "872" in rows[0]
    assert "354" in rows[1]
    header = " ".join(table_of(shown)[:3])
    assert "decode" in header
    assert "tok/s" in header
    # A run id and a log's path are there to be copied and are never broken.
    long = [line for line in shown.splitlines() if len(line) > wide]
    assert [line for line in long if runs.mixed().run_id not in line] == []


def test_columns_that_do_not_fit_are_named_below_the_table() -> None:
    assert "not shown at this width" not in text(runs.mixed(), width=200)
    narrow = " ".join(text(runs.mixed(), width=60).split())
    assert "not shown at this width: accept len, ITL mean ms, TTFT p50 ms" in narrow
    # What varies is in every label, so nothing is lost with those columns.
    assert "MoE backend," not in narrow


def test_a_figure_that_no_cell_has_takes_no_column() -> None:
    none = Quantiles(mean=None, p50=None, p99=None)
    shown = text(runs.model({runs.AUTO: [runs.passed(runs.AUTO, runs.point(5.0, ttft_ms=none))]}), width=200)
    assert "TTFT" not in shown
    assert "J/1k" not in shown


def test_two_workloads_that_ask_the_same_of_one_server_are_one_launch() -> None:
    twice = runs.passed(runs.AUTO, runs.point(100.0), runs.point(110.0))
    shown = text(runs.model({runs.AUTO: [twice]}), width=120)
    assert "1?" in shown
    assert "105" in shown
    assert "±" not in shown


def test_an_unknown_figure_prints_a_dash_and_a_measured_zero_stays_a_zero() -> None:
    model = runs.model({runs.AUTO: [runs.passed(runs.AUTO, runs.point(0.0))]})
    assert "0.00" in table_of(text(model, width=100))[-1]
    row = next(line for line in text(runs.mixed(), width=200).splitlines() if line.startswith("1?"))
    assert row.rstrip().endswith("-"), "no acceptance length without speculation"


def test_what_was_asked_and_what_ran_are_two_columns() -> None:
    shown = text(runs.mixed(), width=200)
    row = next(line for line in shown.splitlines() if line.startswith("1?"))
    assert "auto" in row
    assert "triton" in row
    assert "ran" in " ".join(table_of(shown)[:3])


def test_one_launch_is_provisional_and_says_what_would_help() -> None:
    shown = text(runs.mixed(), width=100)
    assert "? one launch: no spread is known" in shown
    assert "--launches 3 --resume" in shown
    assert "±" not in shown
    assert "; 1 launch a cell" in shown


def test_cells_that_the_evidence_does_not_separate_share_a_place() -> None:
    model = runs.model(
        {
            runs.AUTO: runs.launches(runs.AUTO, 100.0, 110.0, 90.0),
            runs.MARLIN: runs.launches(runs.MARLIN, 99.0, 109.0, 91.0),
        }
    )
    shown = text(model, width=100)
    assert [line.split()[0] for line in table_of(shown) if line[:1].isdigit()] == ["1=", "1="]
    assert "= the evidence does not separate these cells" in shown
    assert "; 3 launches a cell" in shown
    assert "±" in shown
    assert "? one launch" not in shown


def test_unequal_numbers_of_launches_get_a_column() -> None:
    model = runs.model(
        {runs.AUTO: runs.launches(runs.AUTO, 100.0, 101.0), runs.MARLIN: runs.launches(runs.MARLIN, 50.0)}
    )
    shown = text(model, width=200)
    assert "launches" in shown
    assert "a cell\n" not in shown


def test_a_cell_without_a_place_has_cause_line_log_and_what_to_try() -> None:
    shown = text(runs.mixed(), width=160)
    failure = shown[shown.index("not ranked") :]
    assert "FAIL  vllm cutlass tp1 " in failure
    assert "in ready, after 28 s: cutlass-tma-ws-init" in failure
    assert "line  RuntimeError: Failed to initialize <b>cutlass</b> TMA WS grouped gemm | Error Internal" in failure
    assert "log   trials/x-1/server.log:61" in failure
    assert "try   --moe-backend marlin" in failure
    assert "SKIP  vllm deep_gemm   in plan: excluded" in failure
    assert "why   no such kernel on this GPU" in failure
    assert f"--run {runs.mixed().run_id}" in failure


def test_a_log_line_that_is_only_its_own_head_is_kept() -> None:
    cause = replace(runs.CAUSE, line="(Worker pid=9)")
    shown = text(runs.model({runs.BROKEN: [runs.failed(runs.BROKEN, cause)]}), width=80)
    assert "line  (Worker pid=9)" in shown


def test_a_long_log_line_is_cut_and_says_so() -> None:
    cause = replace(runs.CAUSE, line="RuntimeError: " + "shape " * 200)
    shown = text(runs.model({runs.BROKEN: [runs.failed(runs.BROKEN, cause)]}), width=80)
    assert shown.count("shape") < 60
    assert "shape ..." in shown


def test_a_run_in_which_nothing_passed_has_no_table_and_says_so() -> None:
    shown = text(runs.model({runs.BROKEN: [runs.failed(runs.BROKEN)]}), width=80)
    assert "No cell passed; nothing is ranked." in shown
    assert "place" not in shown


def test_a_run_without_a_single_verdict_says_how_to_go_on() -> None:
    shown = text(runs.model({runs.AUTO: [], runs.MARLIN: []}), width=100)
    assert "2 cells not tried yet: sweeper run MATRIX --resume" in shown


def test_findings_are_capped_and_the_rest_is_where_the_last_line_says() -> None:
    shown = text(runs.with_findings(20), width=100)
    assert shown.count("finding number") == 12
    assert "... 8 more: sweeper report" in shown
    assert "more: sweeper" not in text(runs.with_findings(12), width=100)


def test_a_finding_of_all_cells_is_said_once() -> None:
    cells = (runs.AUTO, runs.MARLIN, runs.BROKEN)
    found = runs.with_findings(1).tables[0].lines[0].verdicts[0].findings
    shown = text(runs.model({cell: [runs.passed(cell, runs.point(9.0), findings=found)] for cell in cells}), width=100)
    assert shown.count("finding number 0") == 1
    assert "all 3 cells: finding number 0" in shown


def test_the_head_names_run_machine_and_what_all_cells_share() -> None:
    shown = text(runs.mixed(), width=100)
    assert shown.startswith("Backends of a small model\nrun 2026-11-21T080703Z-demo-5f81\n")
    assert "host: AMD EPYC, 2 cores, no GPU" in shown
    assert "same in all cells: engine vllm · model m" in shown


def test_gpus_are_counted_by_name() -> None:
    gpu = {"name": "RTX PRO 6000", "sm": "12.0"}
    model = runs.model({runs.AUTO: []}, host={"gpus": [gpu, gpu], "driver": "580.1", "wsl": "WSL2"})
    assert "host: 2 x RTX PRO 6000 (sm 12.0) · driver 580.1 · WSL2" in text(model, width=100)


@pytest.mark.parametrize("wide", [1, 10, 18])
def test_a_terminal_too_narrow_for_a_word_still_gets_its_report(wide: int) -> None:
    assert "not ranked" in text(runs.mixed(), width=wide)
