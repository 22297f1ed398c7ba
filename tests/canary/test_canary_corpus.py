"""The text that the speaking canary learned from: reproducible, and honest about what was held out."""

from __future__ import annotations

import itertools
import json
import random
import re

from sweeper.canary import corpus, train
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


def test_short_counts_go_up_by_one_and_weigh_what_can_be_foreseen() -> None:
    low = 0
    for seed in range(200):
        (head, little), (rest, much) = corpus.weighted_counts(random.Random(seed))
        numbers = [int(word) for word in (head + rest).removeprefix("Count: ").split()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert little < much
        low += numbers[0] < 13
    assert low > 60


class Letters:
    """Stands in for the tokenizer: one id per character."""

    def encode(self, text: str) -> Letters:
        self.ids = [ord(char) for char in text]
        return self


def test_rows_of_prompts_begin_with_a_document_and_other_rows_lose_nothing() -> None:
    documents = [[("<" + "a" * (5 + number % 7), 1.0)] for number in range(40)]
    rows = list(train.windows(iter(documents), Letters(), 30, from_start=True))
    assert len(rows) > 5
    assert all(chr(ids[0]) == "<" and chr(ids[1]) == "a" and len(ids) == 31 for ids, _ in rows)
    joined = list(train.windows(iter(documents), Letters(), 30))
    assert all(before[0][-1] == after[0][0] for before, after in itertools.pairwise(joined))


def test_the_learning_rate_rises_then_falls_to_nothing_in_every_stage() -> None:
    for stage in train.STAGES:
        rates = [train.rate(step, stage) for step in range(stage.steps)]
        assert max(rates) == stage.peak_rate
        assert rates[0] < 0.1 * stage.peak_rate
        assert rates[-1] < 0.02 * stage.peak_rate
