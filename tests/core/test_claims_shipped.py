"""Every figure of the published tables is shipped as a claim: counted, and number by number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sweeper.checkpoint import model_geometry
from sweeper.claimdata.load import load_claims
from sweeper.claimdata.plan import matrix_text, write_matrix
from sweeper.core.claims import Claim
from sweeper.core.claims_compare import DECISIVE
from sweeper.core.expand import expand
from sweeper.core.presets import PRESETS
from sweeper.core.values import Matrix
from sweeper.matrix.load import load_matrix

CLAIMS = load_claims()
FIGURES = [claim for claim in CLAIMS if claim.reading_of is None]

P1_ROWS = 8  # the table's configurations, 50.5 to the community's 130-150
P1_TEXT = 7  # ceiling, -22 %, 61-85 %, 89 %, 140 GB, 80 kernels, 356 TFLOPS
P2_TABLE = 2 * 4  # two lengths: J/1k tok, tok/s, W, CV
P3_TABLE = 15 * 6  # fifteen rows: two energies, one rate, three ratios
P3_POWER = 3 * 4  # three precisions: W and share of 600 W, prefill and decode
P3_RANGES = 3  # prefill 2.5-5.1x, decode 1.5-3.2x, INT8 speed 14-16 %
P4_LADDER = 5 * 2  # five rungs: prefill, generation
P4_QUOTED = 6  # M5 Max 87, 463, 34, 26; GB10 344, 13.8
P4_MEMORY = 8  # load 38 s; 80.76, 12, 5.7, 3.5, 91, 1 and 2.4 GB
P4_ANSWERS = 3  # judged 4.46 and 4.52; 3.3-4.5x slower
P5_THROUGHPUT = 5
P5_ACCURACY = 3
P5_LIVEBENCH = 3 * 2  # mean, relative to BF16
P5_PERPLEXITY = 4 * 6  # four checkpoints: PPL and NLL of two sets, overall PPL, score

COUNTS = {
    "P1 MoE backend sweep": P1_ROWS + P1_TEXT,
    "P2 FP16 energy baseline": P2_TABLE,
    "P3 phase-separated energy": P3_TABLE + P3_POWER + P3_RANGES,
    "P4 context ladder": P4_LADDER + P4_QUOTED + P4_MEMORY + P4_ANSWERS,
    "P5 serving and accuracy": P5_THROUGHPUT + P5_ACCURACY + P5_LIVEBENCH + P5_PERPLEXITY,
    "community Qwen3.5-397B on 4x RTX PRO 6000": 83,
    "community other models on RTX PRO 6000": 52,
}

COMMUNITY_397B = """
50.5 49 39-40 41 26 5 6-7 1.4-2.6 5.9 8.6
55 119 142 282
171 648 161 652 6 76 373 74 376
144 139 75.5 73 139 283 39
108.1 554 1551 180.4 668 769 74.9 70-76
71.6-81 1580-1590 2277-2294 121-130 577-615 1418-1441 3220-3232
85.8 137.1 234.2 334.3 491.5 605.9 130 212.7 358.6 573.5 744.1 922.6
152 132 150-250 42-51 85 350 147 40 130 29
658 672 12.6 79 5999 6198 689 1233 6.5 154 6895 766 27.2 9.6
22.5 580
"""
COMMUNITY_OTHER = """
198 197 200 198 157 170 86 73 37.8
101 90 79 65 44 53-55 32-35 8.6-10.2
89.1 950.7 56.7 45.5 70-80 90-95
52-57 7 95-105 962 1425
85-89 114 50 930 1551 56 88 120-131
108.75 390.2 77.8 292.7 63.3 96.1 116.3 190 606 382 322
-28 -4 -30:-23 1206 1558
"""
P3_ROWS = """
0.924 42.737 105.26 1 1 1          4.736 135.724 15.79 5.12 3.18 0.15     3.569 71.281 41.10 3.86 1.67 0.39
1.326 48.156 789.97 1 1 1          5.829 154.507 112.77 4.39 3.21 0.14    4.511 133.460 244.35 3.40 2.77 0.31
1.575 73.191 80.74 1 1 1           6.620 186.035 12.30 4.20 2.54 0.15     6.412 108.622 31.71 4.07 1.48 0.39
2.423 81.280 636.22 1 1 1          8.364 212.776 86.55 3.45 2.62 0.14     7.886 234.826 188.79 3.25 2.89 0.30
3.645 116.080 617.32 1 1 1         9.124 218.745 99.99 2.50 1.88 0.16     12.126 365.331 222.80 3.33 3.15 0.36
92-247 15-41 141-280 23-47         114-326 19-54 92-318 15-53             67-109 11-18 67-85 11-14
2.5-5.1 1.5-3.2 14-16
"""
P1 = "50.5 49 39-40 41 26 5 6-7 130-150 50.5 -22 61-85 89 140 80 356"
P2 = "2660.83 83.05 221.58 4.7 2709.67 83.17 225.61 1.4"
P4 = """
362.3 45.9 360.1 42.6 358 41.6 352.4 41.7 345.5 40.6 87 463 34 26 344 13.8
38 80.76 12 5.7 3.5 91 1 2.4 4.46 4.52 3.3-4.5
"""
P5 = """
260.37 348.01 606.47 381.87 322.09 34 35 35 0.278556 100 0.268326 96.33 0.279269 100.26
1.687084 0.523002 1.461068 0.379167 1.481134 100 1.709212 0.536032 1.470275 0.385449 1.491422 99.31
1.739074 0.553353 1.481108 0.392791 1.503834 98.49 1.706852 0.534650 1.484568 0.395124 1.504343 98.46
"""
NUMBERS = dict(zip(COUNTS, (P1, P2, P3_ROWS, P4, P5, COMMUNITY_397B, COMMUNITY_OTHER), strict=True))


def ends(word: str) -> tuple[float, float]:
    parts = word.split(":") if ":" in word else [word] if word.startswith("-") else word.split("-")
    return float(parts[0]), float(parts[-1])


@pytest.mark.parametrize("table", COUNTS)
def test_a_table_has_as_many_claims_as_figures(table: str) -> None:
    assert sum(claim.table == table for claim in FIGURES) == COUNTS[table]


@pytest.mark.parametrize("table", COUNTS)
def test_every_number_of_a_table_is_a_claim(table: str) -> None:
    published = Counter(ends(word) for word in NUMBERS[table].split())
    shipped = Counter((claim.low, claim.high) for claim in FIGURES if claim.table == table)
    assert published == shipped


def test_no_table_is_left_out() -> None:
    assert {claim.table for claim in CLAIMS} == set(COUNTS)


def test_ids_are_unique_and_every_claim_has_source_and_date() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert [claim.id for claim in CLAIMS if not (claim.source.where and claim.source.date)] == []


def test_a_rate_states_or_asks_for_every_decisive_condition() -> None:
    """Engine, backend and degrees may be free where the claim is about the best of all, or of one GPU."""
    free = {"moe_backend", "engine", "tp", "pp", "ep", "draft_tokens"}
    rates = [claim for claim in CLAIMS if claim.unit == "tok/s"]
    for claim in rates:
        for name in set(DECISIVE) - free:
            stated = getattr(claim.conditions, name) is not None
            assert stated or name in claim.unknown, f"{claim.id}: {name}"


def test_spreads_are_kept() -> None:
    by_id = {claim.id: claim for claim in CLAIMS}
    assert by_id["p2-256-energy"].spread == 124.87
    assert by_id["kimi-k2.6-mtp3-c64"].spread == 8.8


def test_what_was_taken_back_says_so() -> None:
    assert {claim.id for claim in FIGURES if claim.retracted} == {"lda-k64-282"}


@pytest.mark.parametrize("table", COUNTS)
def test_the_plan_of_every_claim_loads_and_has_cells_to_run(table: str, tmp_path: Path) -> None:
    for claim in (claim for claim in CLAIMS if claim.table == table):
        file = tmp_path / f"{claim.id}.yaml"
        write_matrix(claim, file)
        matrix = load_matrix(file, environ={}, cwd=tmp_path)
        runnable = expand(matrix, matrix.hardware, model_geometry).cells
        # Its author says himself that nothing was left for the KV cache: 237 GB do not fit two cards.
        assert bool(runnable) == (claim.id != "lda-ep"), claim.id
        check_conditions(claim, matrix)


def check_conditions(claim: Claim, matrix: Matrix) -> None:
    c, workload = claim.conditions, matrix.workloads[0]
    assert c.concurrency is None or workload.concurrency == (c.concurrency,), claim.id
    assert c.preset not in PRESETS or workload.preset == c.preset, claim.id
    for cell in matrix.cells:
        asked = " ".join([cell.moe_backend, *cell.extra_args])
        assert c.tp in (None, cell.parallelism.tp), claim.id
        assert c.moe_backend is None or c.moe_backend in asked, claim.id
        assert c.speculative != "none" or cell.speculative is None, claim.id


def test_a_plan_names_what_it_had_to_assume() -> None:
    text = matrix_text(next(claim for claim in CLAIMS if claim.id == "p1-community-130-150"))
    assert "# - speculative: not stated; measured without and with three drafts a step" in text
    assert "# - the operating system: wsl2" in text
