"""Small files are there whole or not at all, and what is no file is not made one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sweeper.core.errors import EnvironmentNotReady
from sweeper.store.rundir import write_bytes


def test_a_pipe_receives_the_text_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"report")
    reader.join(5)
    assert read == [b"report"]
    assert pipe.is_fifo(), "a rename would have put a file in its place, as it would for /dev/null"


def test_a_link_keeps_pointing_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "kept").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentNotReady, match="No space left on device") as refused:
        write_bytes(tmp_path / "kept", b"new", hint="--out FILE")
    assert refused.value.hint == "--out FILE"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotReady, match="directory"):
        write_bytes(tmp_path, b"x")
