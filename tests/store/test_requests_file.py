"""Request records: what comes before damage is kept."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sweeper.store.rundir import append_requests, read_requests


@pytest.mark.parametrize("damage", [b"", gzip.compress(b"{}")[:-12], gzip.compress(b"{}" * 100)[:10] + b"\xff" * 20])
def test_what_was_written_before_a_damaged_end_is_read(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "requests.jsonl.gz"
    append_requests(path, [{"index": n} for n in range(3)])
    with path.open("ab") as file:
        file.write(damage)
    assert [row["index"] for row in read_requests(path)] == [0, 1, 2]


def test_no_file_is_no_request(tmp_path: Path) -> None:
    assert read_requests(tmp_path / "none.gz") == []
