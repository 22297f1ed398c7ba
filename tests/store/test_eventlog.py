"""The record survives a torn line, refuses a second writer and a newer format."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.core.errors import EnvironmentNotReady, RecordUnusable
from sweeper.store.eventlog import EventLog, Lock, holder, read_events, torn_lines


def write(path: Path, *kinds: str) -> None:
    log = EventLog(path)
    for kind in kinds:
        log.append(kind, {"text": "ü"}, utc="2026-01-01T00:00:00+00:00", mono_s=1.0)
    log.close()


def test_events_come_back_in_order_with_rising_numbers(tmp_path: Path) -> None:
    write(tmp_path / "events.jsonl", "a", "b")
    write(tmp_path / "events.jsonl", "c")
    assert [(event.seq, event.type) for event in read_events(tmp_path / "events.jsonl")] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]


def test_a_torn_last_line_loses_only_that_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, "a", "b")
    path.write_bytes(path.read_bytes()[:-9])
    write(path, "c")
    assert [event.type for event in read_events(path)] == ["a", "c"]
    assert torn_lines(path) == 1


def test_binary_rubbish_in_the_record_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, "a")
    with open(path, "ab") as file:
        file.write(b"\x00\xff{]\n[1,2]\n{}\n")
    write(path, "b")
    assert [event.type for event in read_events(path)] == ["a", "b"]


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"v": 99, "seq": 1, "utc": "x", "mono_s": 0, "type": "a", "trial": null, "data": {}}\n')
    with pytest.raises(RecordUnusable, match="newer sweeper"):
        list(read_events(path))


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from sweeper.store.eventlog import Lock; lock = Lock(pathlib.Path(sys.argv[1])); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RecordUnusable, match=f"pid {holder.pid}"):
            Lock(tmp_path)
        holder.kill()
    Lock(tmp_path).release()


def test_who_holds_a_folder_is_seen_without_touching_the_lock(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    lock = Lock(tmp_path)
    assert holder(tmp_path) == f"pid {os.getpid()} on {socket.gethostname()}"
    lock.release()
    assert holder(tmp_path) is None, "what the file says outlives the hold"
    (tmp_path / "lock").write_text("pid 1 on another-host")
    assert holder(tmp_path) is None


def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotReady, match="cannot write"):
        EventLog(tmp_path / "missing" / "events.jsonl")
