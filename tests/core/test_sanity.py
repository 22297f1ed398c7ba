"""Texts of working and broken servers."""

from __future__ import annotations

import pytest

from sweeper.core.sanity import is_right, problem

PROSE = (
    "Rain falls when droplets in a cloud grow heavy enough that the rising air no longer carries them. "
    "They merge as they fall, and what began as mist reaches the ground as drops."
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("!" * 64, "looping"),
        ("!!!! " * 20, "looping"),
        ("the the the the the the the the the the the the the the", "looping"),
        ("and so it goes on, " * 14, "looping"),
        ("\ufffd\ufffd\ufffd\ufffd ab \ufffd\ufffd", "not text"),
        ("\x00\x01\x02\x03abc", "not text"),
        (PROSE, None),
        ("Paris.", None),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20", None),
        ("def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n", None),
        ("水は百度で沸騰し、零度で凍ります。空は青く、草は緑です。", None),
    ],
)
def test_text_is_told_from_noise(text: str, expected: str | None) -> None:
    assert problem(text) == expected


def test_a_known_answer_is_looked_for_without_regard_to_case() -> None:
    assert is_right("the capital is PARIS.", r"\bParis\b") is True
    assert is_right("London", r"\bParis\b") is False
    assert is_right("anything", None) is None
