"""Prompts of a requested number of tokens, for a tokenizer that nobody told us about.

Words are fitted to tokens prompt by prompt: an estimate, a count, a better estimate, and at last the final word in
pieces. Who counts: a tokenizer at hand, the server's `/tokenize` route (vLLM, SGLang, llama.cpp), or the server itself,
asked for one token after the same text under another first line, so that nothing is left in its prefix cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from sweeper.probes.load.counters import post

Count = Callable[[Sequence[str]], "list[int] | None"]
"""Tokens of each text; None when it cannot be said."""
WORD_ROUNDS, CUT_ROUNDS = 9, 5


@dataclass(frozen=True, slots=True)
class Length:
    """So many words of a prompt, less `cut` characters at the end."""

    words: int
    cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """`tokens` within `slack`, and never more than `most`."""

    tokens: int
    slack: int
    most: int

    def miss(self, got: int) -> int:
        """Distance from the goal; too long for the server is further away than anything."""
        return abs(got - self.tokens) + (1 << 30 if got > self.most else 0)


def seek(text: Callable[[Length], str], goal: Goal, words: int, per_word: float) -> Generator[Length, int, Length]:
    """Yields lengths to count, takes their tokens, returns the best. Words between known bounds, then characters."""
    below, above = (3, 0), (1 << 30, 0)
    best = (1 << 32, Length(words))
    for _ in range(WORD_ROUNDS):
        got = yield Length(words)
        best = min(best, (goal.miss(got), Length(words)), key=lambda found: found[0])
        if best[0] <= goal.slack:
            return best[1]
        if got > goal.tokens:
            above = (words, got)
        else:
            below = (words, got)
        if above[0] - below[0] <= 1:
            break
        if below[1] and above[1]:
            words = below[0] + round((goal.tokens - below[1]) / (above[1] - below[1]) * (above[0] - below[0]))
        else:
            words += round((goal.tokens - got) / per_word)
        words = min(max(words, below[0] + 1), above[0] - 1)
    if above[1]:
        size = len(text(Length(above[0])).rsplit(None, 1)[-1])
        best = min(best, (yield from _pieces(goal, above[0], size)), key=lambda found: found[0])
    return best[1]


def _pieces(goal: Goal, words: int, size: int) -> Generator[Length, int, tuple[int, Length]]:
    """Halves what is cut off the last word."""
    best, least, most = (1 << 32, Length(words)), 0, size
    for _ in range(CUT_ROUNDS):
        cut = (least + most) // 2
        if cut in (least, most):
            break
        got = yield Length(words, cut)
        best = min(best, (goal.miss(got), Length(words, cut)), key=lambda found: found[0])
        if best[0] <= goal.slack:
            break
        least, most = (cut, most) if got > goal.tokens else (least, cut)
    return best


def fit(
    texts: Sequence[Callable[[Length], str]], count: Count, goal: Goal, words: int, per_word: float, *, rounds: int = 99
) -> list[Length] | None:
    """A length for each text, counted side by side for at most so many rounds. None when the counter gives up."""
    searches = [seek(text, goal, words, per_word) for text in texts]
    asked = [next(search) for search in searches]
    best = [(1 << 32, length) for length in asked]
    running = list(range(len(texts)))
    for _ in range(rounds):
        if not running:
            break
        got = count([texts[i](asked[i]) for i in running])
        if got is None:
            return None
        still = []
        for i, tokens in zip(running, got, strict=True):
            best[i] = min(best[i], (goal.miss(tokens), asked[i]), key=lambda found: found[0])
            try:
                asked[i] = searches[i].send(tokens)
                still.append(i)
            except StopIteration as end:
                best[i] = (0, end.value)
        running = still
    return [length for _, length in best]


def server_count(base_url: str, model: str, headers: Sequence[str]) -> Count:
    """Counts by POST /tokenize: vLLM and SGLang read `prompt`, llama.cpp `content`."""

    def count(texts: Sequence[str]) -> list[int] | None:
        found = []
        for text in texts:
            body = json.dumps({"model": model, "prompt": text, "content": text}).encode()
            status, answer = post(base_url, "/tokenize", body, headers)
            try:
                said = json.loads(answer) if status == 200 else {}
                tokens = said.get("count") or len(said["tokens"])
            except (ValueError, KeyError, TypeError, AttributeError):
                return None
            if not tokens:
                return None
            found.append(int(tokens))
        return found

    return count


def shifted(count: Count, by: int) -> Count:
    """`count` with what the server adds to every prompt (a chat template)."""

    def counted(texts: Sequence[str]) -> list[int] | None:
        got = count(texts)
        return None if got is None else [tokens + by for tokens in got]

    return counted
