"""Is this text the output of a working model? Statistics over characters and words, no model needed.

Recognised: nothing at all, one thing repeated, characters that are no text, noise without repetition or words.
Not recognised: fluent nonsense. That is what prompts with a known answer, and the golden vectors, are for.
A false alarm fails a good cell, so each bound is far from what the shipped prompts give on healthy servers.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence

from sweeper.core.observations import OutputSample

MIN_JUDGED_CHARS = 24
"""Shorter answers are only tested for being empty: `Paris.` has no statistics."""

LOOP_RATIO = 12.0
"""zlib ratio above which a text is one thing repeated. English prose compresses 1.5 to 2.5 times at this length."""


def problem(text: str) -> str | None:
    """`empty`, `looping`, `not text`, or None."""
    stripped = text.strip()
    if not stripped:
        return "empty"
    if _share_not_text(stripped) > 0.2:
        return "not text"
    if len(stripped) < MIN_JUDGED_CHARS:
        return None
    return "looping" if _loops(stripped) else None


def _share_not_text(text: str) -> float:
    bad = sum(
        1
        for char in text
        if char == "\ufffd" or (unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs") and char not in "\n\t\r")
    )
    return bad / len(text)


def _loops(text: str) -> bool:
    raw = text.encode()
    if len(raw) / len(zlib.compress(raw, 9)) > LOOP_RATIO:
        return True
    if Counter(text).most_common(1)[0][1] / len(text) > 0.6:
        return True
    words = text.split()
    if len(words) < 12:
        return False
    # "the the the" and "!!! !!! !!!": one word, or one pair, carries most of the answer.
    if Counter(words).most_common(1)[0][1] / len(words) > 0.5:
        return True
    return _tail_repeats(text)


def _tail_repeats(text: str, *, cycles: int = 6, longest: int = 120) -> bool:
    """The last characters are one unit, at least four long, written `cycles` times."""
    for size in range(4, min(longest, len(text) // cycles) + 1):
        unit = text[-size:]
        if text.endswith(unit * cycles) and len(set(unit)) > 1:
            return True
    return False


def is_right(text: str, expected: str | None) -> bool | None:
    """Whether `expected` (a regular expression, case ignored) occurs in the answer; None without one."""
    if expected is None:
        return None
    return re.search(expected, text, re.IGNORECASE | re.DOTALL) is not None


def summarise(samples: Sequence[OutputSample]) -> tuple[str | None, OutputSample | None]:
    """The problem that fails the cell and the sample that shows it, or (None, None).

    One empty or non-text answer out of several may be the model's own; two may not. Of the prompts with a known
    answer, less than half right is nonsense.
    """
    broken = [sample for sample in samples if sample.problem]
    if broken and (len(broken) >= 2 or len(samples) < 3):
        return broken[0].problem, broken[0]
    known = [sample for sample in samples if sample.right is not None]
    wrong = [sample for sample in known if not sample.right]
    if known and 2 * len(wrong) > len(known):
        return f"nonsense: {len(wrong)} of {len(known)} known answers wrong", wrong[0]
    return None, None
