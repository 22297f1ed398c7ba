"""A cause is found wherever it stands and whatever the layout did to it."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mutate

from sweeper.diagnosis.diagnose import diagnose_bytes
from sweeper.diagnosis.signature import load_signatures

SIGNATURES = load_signatures()
KNOWN = mutate.causes(SIGNATURES)


def share_right(seed: int, count: int) -> tuple[float, str]:
    draw = random.Random(seed)
    logs = mutate.healthy_logs()
    wrong: list[str] = []
    for _ in range(count):
        made = mutate.mutant(draw, logs, KNOWN)
        diagnosis = diagnose_bytes(made.text.encode(), SIGNATURES)
        named = diagnosis.cause.id if diagnosis.cause else None
        if named != made.id:
            wrong.append(f"{made.id} -> {named} ({diagnosis.verdict}): {made.how}")
    worst = Counter(row.split(" (")[0] for row in wrong).most_common(12)
    return 1 - len(wrong) / count, "\n".join([f"seed {seed}", *map(str, worst), *wrong[:25]])


def test_a_cause_is_named_in_a_few_mutated_logs() -> None:
    share, report = share_right(20261121, 150)
    assert share >= 0.98, report


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [20261121, int(os.environ.get("SWEEPER_SEED", "0")) or random.SystemRandom().getrandbits(32)]
)
def test_98_of_100_causes_are_named_in_2000_mutated_logs(seed: int) -> None:
    share, report = share_right(seed, 2000)
    assert share >= 0.98, report
