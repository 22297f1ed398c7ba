"""The text that the speaking canary learned from: reproducible, and honest about what was held out."""

from __future__ import annotations

import itertools
import json
import random
import re

from sweeper.canary import corpus
from sweeper.canary.speaking import speaking_dir


def test_the_same_seed_gives_the_same_text() -> None:
    first = list(itertools.islice(corpus.documents(5), 50))
    assert first == list(itertools.islice(corpus.documents(5), 50))
    assert first != list(itertools.islice(corpus.documents(6), 50))


def test_no_held_out_sum_is_in_either_stage_and_all_sums_are_right() -> None:
    plain = "".join(corpus.arithmetic(random.Random(seed)) for seed in range(300))
    weighted = "".join(text for seed in range(300) for text, _ in corpus.weighted_sums(random.Random(seed)))
    for text in (plain, weighted):
        found = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text)
        assert len(found) > 1000
        for a, sign, b, answer in found:
            assert not corpus.held_out(f"{a}{sign}{b}")
            assert corpus.result(int(a), sign, int(b)) == int(answer)


def test_the_exam_asks_only_what_was_held_out() -> None:
    for item in corpus.exam(1, per_skill=30):
        if item.skill == "arithmetic":
            a, sign, b, _ = item.prompt.split()
            assert corpus.held_out(f"{a}{sign}{b}")
            assert int(item.answer) == corpus.result(int(a), sign, int(b))


def test_the_shipped_prompts_have_expressions_that_compile() -> None:
    rows = json.loads((speaking_dir() / "prompts.json").read_text())
    assert len(rows) >= 5
    for row in rows:
        re.compile(row["expect_regex"])
        assert row["prompt"]
