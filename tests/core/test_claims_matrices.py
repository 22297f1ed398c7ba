"""The shipped matrices measure what their publication claims: no row of it is left without a comparable cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.claimdata.check import check_all
from sweeper.claimdata.figures import figures
from sweeper.claimdata.load import load_claims
from sweeper.core import codec
from sweeper.core.identity import cell_id
from sweeper.core.points import DecodePoint, Energy, Quantiles
from sweeper.core.values import Cell, Matrix, Workload
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.matrix.load import load_matrix
from sweeper.store.record import RunRecord, TrialRecord
from sweeper.store.rundir import RunDir

MATRICES = Path(__file__).parents[2] / "matrices"
NONE = Quantiles(mean=None, p50=None, p99=None)
ENERGY = Energy(joules=1.0, joules_per_1k_tokens=1.0, mean_w=1.0, power_share=0.1)


def point(workload: Workload, concurrency: int) -> DecodePoint:
    return DecodePoint(
        preset=workload.preset, concurrency=concurrency, isl=workload.isl, osl=workload.osl, decode_tok_s=1.0,
        decode_tok_s_per_stream=1.0, serving_tok_s=1.0, prefill_tok_s=1.0, ttft_ms=NONE, itl_ms=NONE, chunk_gap_ms=NONE,
        tokens=1, tokens_source="usage", window_s=1.0, acceptance=None, server_tok_s=None, client_cpu_s=None,
        client_bound=False, energy=ENERGY,
    )  # fmt: skip


def record(matrix: Matrix, folder: Path) -> RunRecord:
    made = RunRecord(run=RunDir(path=folder), facts={"hardware": codec.dump(matrix.hardware), "host": {}})
    for cell in matrix.cells:
        made.cells[cell_id(cell)] = cell
        made.trials[cell_id(cell)] = trial(cell, matrix)
    return made


def trial(cell: Cell, matrix: Matrix) -> TrialRecord:
    name = cell_id(cell)
    points = tuple(point(workload, n) for workload in matrix.workloads for n in workload.concurrency)
    verdict = Verdict(cell_id=name, trial=name, outcome=Outcome.PASS, phase=Phase.STOP, points=points)
    return TrialRecord(trial=name, cell_id=name, attempt=1, verdict=verdict)


ELSEWHERE = {"p4-m5max-prefill-short", "p4-m5max-prefill-long", "p4-m5max-generation-short",
             "p4-m5max-generation-long", "p4-gb10-prefill", "p4-gb10-generation", "p1-community-130-150"}  # fmt: skip
"""Other machines, and the claim that has to be asked about."""


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("qwen3.5-397b-nvfp4-sm120", "P1"),
        ("energy-e2e-qwen2.5-3b", "P2"),
        ("energy-phases-bnb", "P3"),
        ("ds4-context-ladder", "P4"),
        ("serving-16x64x256-mig", "P5"),
    ],
)
def test_every_published_rate_has_a_comparable_cell(file: str, table: str, tmp_path: Path) -> None:
    made = record(load_matrix(MATRICES / f"{file}.yaml", environ={}, cwd=tmp_path), tmp_path)
    rates = [
        claim
        for claim in load_claims()
        if claim.table.startswith(table) and claim.unit == "tok/s" and claim.reading_of is None
    ]
    results = {one.claim.id: one for one in check_all(rates, figures(made))}
    apart = {name: one.why for name, one in results.items() if one.reading is None or one.ask}
    assert set(apart) == {name for name in ELSEWHERE if name in results}, apart
