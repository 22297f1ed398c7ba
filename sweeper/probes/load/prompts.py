"""Fresh natural prompts: sentences of our own, drawn, filled and salted per request from a recorded seed.

Random tokens misjudge draft acceptance and expert routing; a repeated prompt flatters the prefix cache. So each prompt
starts with a line of its own and draws sentences without replacement until the pool is used up.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "data" / "prompts"
_SLOT = re.compile(r"\{(\w+)\}")


def kinds() -> tuple[str, ...]:
    """Names of the prompt classes: prose, code."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


@cache
def _pool(kind: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...] | tuple[int, int]]]:
    _header, *lines = (FOLDER / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    slots: dict[str, tuple[str, ...] | tuple[int, int]] = {}
    for line in lines:
        if line.startswith("%"):
            name, _, values = line[1:].partition(": ")
            if values.startswith("#"):
                low, _, high = values[1:].partition("-")
                slots[name] = (int(low), int(high))
            else:
                slots[name] = tuple(values.split("|"))
    return tuple(line.replace("\\n", "\n") for line in lines if not line.startswith("%")), slots


def _sentences(kind: str, rng: random.Random) -> Iterator[str]:
    pool, slots = _pool(kind)

    def draw(match: re.Match[str]) -> str:
        name = match[1]
        values = slots.get(name)
        if values is None:
            return match[0]
        # Within one piece of code a name means one thing; in prose two visitors may differ.
        if name not in drawn or kind != "code":
            number = isinstance(values[0], int)
            drawn[name] = str(rng.randint(*values)) if number else str(rng.choice(values))
        return drawn[name]

    while True:
        for sentence in rng.sample(pool, len(pool)):
            drawn: dict[str, str] = {}
            yield _SLOT.sub(draw, sentence).replace("{{", "{").replace("}}", "}")


def prompt(words: int, *, seed: int | str, index: int, kind: str = "prose", cut: int = 0, twin: bool = False) -> str:
    """Text of exactly `words` white-space separated words (at least 4); the same for the same arguments.

    `cut` takes characters off its end. `twin`: the same but for its first line, which keeps its length; what a server
    caches of one is of no use for the other. Raises FileNotFoundError for an unknown kind.
    """
    rng = random.Random(f"{seed}/{index}/{kind}")
    salt = f"{rng.getrandbits(40):010x}"
    parts = [f"File {salt[::-1] if twin else salt} of {rng.randint(1, 999)}."]
    have = len(parts[0].split())
    sentences = _sentences(kind, rng)
    while have < words:
        parts.append(next(sentences))
        have += len(parts[-1].split())
    text = ("\n" if kind == "code" else " ").join(parts)
    surplus = have - words
    text = text.rsplit(None, surplus)[0] if surplus > 0 else text
    return text[: len(text) - cut]
