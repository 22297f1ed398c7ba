"""The column of what ran says how far the log proves it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report import runs

from sweeper.core.effective import EffectiveConfig
from sweeper.report.text import text


def shown(ran: bool | None, backend: str = "marlin") -> str:
    verdict = runs.passed(runs.AUTO, runs.point(500.0))
    effective = EffectiveConfig(engine="vllm", moe_backend=backend, moe_backend_ran=ran)
    return text(runs.model({runs.AUTO: [replace(verdict, effective=effective)]}), width=160)


@pytest.mark.parametrize(
    ("ran", "cell", "legend"),
    [
        (None, "marlin (selected)", "(selected) the log names this MoE backend; no line proves which kernel ran"),
        (False, "marlin (in part)", "(in part) the log shows another MoE kernel for some or all calls"),
    ],
)
def test_a_backend_that_is_only_named_is_told_from_one_that_ran(ran: bool | None, cell: str, legend: str) -> None:
    assert cell in shown(ran)
    assert legend in shown(ran)


def test_a_proven_kernel_needs_no_remark() -> None:
    assert "(selected)" not in shown(True)
    assert "(in part)" not in shown(True)
    assert " marlin " in shown(True)


def test_a_table_without_the_column_has_no_legend_for_it() -> None:
    assert "(selected)" not in shown(None, backend="auto")
