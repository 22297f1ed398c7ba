"""Cells held against the reference cell's text before they are ranked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import views
from sweeper.core.observations import TextScored
from sweeper.core.points import Energy
from sweeper.core.textscores import TextScores
from sweeper.core.values import Cell
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.core.windows_point import Asked, ClientCost, decode_point
from sweeper.store.record import RunRecord, TrialRecord
from sweeper.store.rundir import RunDir


def record_of(nll: dict[str, float]) -> RunRecord:
    record = RunRecord(run=RunDir(Path("logs/run")), facts={}, reference="ref")
    for cell_id, value in nll.items():
        record.cells[cell_id] = Cell(engine="vllm", model="m", moe_backend=cell_id)
        trial = TrialRecord(trial=f"{cell_id}-1", cell_id=cell_id, attempt=1)
        scores = TextScores(model="m", nll=value, tokens=400, best=((1, 2, 3),))
        trial.observed.append(TextScored(scores=scores))
        trial.verdict = Verdict(cell_id=cell_id, trial=trial.trial, outcome=Outcome.PASS, phase=Phase.MEASURE)
        record.trials[trial.trial] = trial
    return record


def test_a_cell_whose_text_is_off_the_references_is_not_ranked_and_says_by_how_much() -> None:
    record = record_of({"ref": 2.0, "close": 2.004, "off": 2.6})
    verdicts = {
        cell_id: [trial.verdict for trial in record.of_cell(cell_id) if trial.verdict] for cell_id in record.cells
    }
    judged = views.against_reference(record, verdicts)
    assert judged["ref"][0].outcome is Outcome.PASS
    assert judged["close"][0].outcome is Outcome.PASS
    assert "relative score 99.60" in judged["close"][0].findings[0].text
    assert judged["off"][0].outcome is Outcome.FAIL
    assert judged["off"][0].cause is not None
    assert "relative score 54.88" in judged["off"][0].cause.means


@pytest.mark.parametrize(
    ("joules", "state", "changed"), [(488.4, "fine", False), (500.0, "fine", True), (488.0, "thermal", True)]
)
def test_the_rounding_of_a_stored_trace_is_no_change_of_a_verdict(joules: float, state: str, changed: bool) -> None:
    def judged(energy: Energy) -> Verdict:
        point = decode_point(
            Asked(preset="sustained-decode", concurrency=1, isl=8, osl=8, seed=0),
            [],
            ClientCost(cpu_s=0, cpu_share=0, lag_p99_s=0),
            energy=energy,
        )
        return Verdict(cell_id="c", trial="c-1", outcome=Outcome.PASS, phase=Phase.MEASURE, points=(point,))

    def energy(joules: float, state: str) -> Energy:
        return Energy(joules=joules, joules_per_1k_tokens=None, mean_w=None, power_share=None, state=state)

    found = views.difference(
        Cell(engine="vllm", model="m"), judged(energy(487.6, "fine")), judged(energy(joules, state))
    )
    assert (found is not None) == changed


def test_a_reference_that_decodes_nothing_does_not_drift_by_its_serving_rate() -> None:
    asked = Asked(preset="sustained-decode", concurrency=1, isl=8, osl=8, seed=0)
    idle = ClientCost(cpu_s=0, cpu_share=0, lag_p99_s=0)
    point = replace(decode_point(asked, [], idle), decode_tok_s=0.0, serving_tok_s=50.0, invalid=(), tokens=0)
    verdict = Verdict(cell_id="ref", trial="ref-1", outcome=Outcome.PASS, phase=Phase.MEASURE, points=(point,))
    assert views._reference_rates(record_of({"ref": 2.0}), {"ref": [verdict]}) == [0.0]
    spoiled = replace(verdict, points=(replace(point, invalid=("x",)),))
    assert views._reference_rates(record_of({"ref": 2.0}), {"ref": [spoiled]}) == []
