"""Progress on a terminal and in a file."""

from __future__ import annotations

import io
import re

import pytest
from report import runs

from sweeper.core.observations import PointMeasured
from sweeper.core.verdicts import Phase
from sweeper.report.progress import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def trial(stream: io.StringIO) -> str:
    console = Console(stream)
    console.trial(3, 16, "vllm cutlass tp4 with a label that is longer than the terminal is wide", "launch 1")
    console.phase(Phase.READY, "loading weights")
    console.observed(PointMeasured(workload="decode", point=runs.point(0.0, serving_tok_s=12.0)))
    console.verdict(runs.passed(runs.AUTO, runs.point(415.0), runs.point(0.0, 16, serving_tok_s=12.0)), 61.4)
    console.note("a note")
    console.close()
    return stream.getvalue()


def test_in_a_file_every_step_is_a_line_without_control_characters() -> None:
    said = trial(io.StringIO())
    assert "\x1b" not in said
    assert "\r" not in said
    assert said.splitlines()[-2:] == [
        "[ 3/16] vllm cutlass tp4 with a label that is longer than the terminal is wide   "
        "PASS   415 tok/s at 8, 0.00 tok/s at 16   61 s",
        "a note",
    ]
    assert "ready: loading weights" in said


def test_the_live_line_fits_the_terminal_and_keeps_the_seconds() -> None:
    said = trial(Terminal())
    drawn = [part for part in re.split(r"\r\x1b\[K", said) if part and "\n" not in part]
    assert drawn
    assert all(len(line) < 60 and re.search(r" \d+ s$", line) for line in drawn)
    assert any("...   ready: loading weights   " in line for line in drawn), "the step is not cut for the label"


def test_what_stays_on_a_terminal_is_the_verdict_and_the_note() -> None:
    kept = [line.split("\x1b[K")[-1] for line in trial(Terminal()).split("\n") if line]
    assert "\x1b[32mPASS\x1b[0m" in kept[0]
    assert kept[1] == "a note"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in trial(Terminal())


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in trial(Terminal())
