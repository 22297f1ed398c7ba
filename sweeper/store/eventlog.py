"""The append-only record of a run: one JSON object a line, one writer, read back past a torn last line.

Each event is written with a single `write`, so a crash of ours loses nothing; a power cut costs at most the lines since
the last fsync, which happens at the end of every trial. A line that does not parse is reported and skipped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sweeper.core.errors import EnvironmentNotReady, RecordUnusable, RecordUnwritable

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. `mono_s` belongs to one process of one host and is never compared across `run_started` events."""

    seq: int
    utc: str
    mono_s: float
    type: str
    trial: str | None
    data: dict[str, Any]


class Lock:
    """Exclusive hold of a run folder: an flock that the kernel drops when the holder dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        try:
            self._file: IO[str] = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115 - held for the run
        except OSError as error:
            raise EnvironmentNotReady(
                f"cannot write to {folder}: {error.strerror}", hint="Choose another folder with --logs DIR."
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "an unknown process"
            self._file.close()
            raise RecordUnusable(
                f"{folder} is in use by {holder}", hint=f"Wait for it, or watch it: sweeper status {folder}"
            ) from None
        try:
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
        except OSError as error:
            raise EnvironmentNotReady(
                f"cannot write to {folder}: {error.strerror}", hint="Free space, or choose another folder: --logs DIR."
            ) from None

    def release(self) -> None:
        """Give the folder up. Idempotent."""
        self._file.close()


def holder(folder: Path) -> str | None:
    """Which process of this machine holds a run folder, as `pid 812 on host`; None: nobody.

    Looks only: taking the lock to try it could refuse a sweep that begins at that moment.
    """
    path = (folder / "lock").resolve()
    try:
        told = path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    found = re.fullmatch(r"pid (\d+) on (.*)", told)
    if found is None or found[2] != socket.gethostname():
        return None
    try:
        entries = list(Path(f"/proc/{found[1]}/fd").iterdir())
    except PermissionError:
        return told  # somebody else's process: it lives, and its files are not ours to see
    except OSError:
        return None
    for entry in entries:
        with contextlib.suppress(OSError):  # closed meanwhile
            if entry.readlink() == path:
                return told
    return None


class EventLog:
    """Writer. Continue an existing file by opening it again: a torn last line is closed with a newline first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        last, torn = _last_seq(path)
        self._seq = last
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EnvironmentNotReady(f"cannot write {path}: {error.strerror}") from None
        if torn:
            self._write(b"\n")

    def append(self, kind: str, data: dict[str, Any], *, utc: str, mono_s: float, trial: str | None = None) -> None:
        """Raises RecordUnwritable when the disk is full: a sweep without a record is worth nothing."""
        self._seq += 1
        line = {"v": VERSION, "seq": self._seq, "utc": utc, "mono_s": round(mono_s, 4), "type": kind, "trial": trial}
        self._write(json.dumps({**line, "data": data}, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def sync(self) -> None:
        """Push what was written to the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Sync and close. Idempotent."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _write(self, raw: bytes) -> None:
        try:
            written = os.write(self._fd, raw)
            if written != len(raw):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise RecordUnwritable(
                f"cannot write {self._path}: {error.strerror}",
                hint=f"Free space, then continue: sweeper run MATRIX --resume {self._path.parent}",
            ) from None


def read_events(path: Path) -> Iterator[Event]:
    """Events in file order; lines that do not parse (torn by a crash) are left out. See `torn_lines`."""
    for raw in _lines(path):
        event = _parse(raw)
        if event is not None:
            yield event


def torn_lines(path: Path) -> int:
    """How many lines of the record could not be read."""
    return sum(1 for raw in _lines(path) if raw.strip() and _parse(raw) is None)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from file
    except FileNotFoundError:
        raise RecordUnusable(f"{path.parent} holds no record ({path.name} is missing)") from None
    except OSError as error:
        raise RecordUnusable(f"cannot read {path}: {error.strerror}") from None


def _parse(raw: bytes) -> Event | None:
    try:
        line = json.loads(raw)
        if line["v"] > VERSION:
            raise RecordUnusable(
                f"the record was written by a newer sweeper (format {line['v']}, this one reads {VERSION})",
                hint="pip install --upgrade sweeper",
            )
        return Event(
            seq=int(line["seq"]),
            utc=str(line["utc"]),
            mono_s=float(line["mono_s"]),
            type=str(line["type"]),
            trial=line["trial"],
            data=dict(line["data"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _last_seq(path: Path) -> tuple[int, bool]:
    if not path.exists():
        return 0, False
    last, torn = 0, False
    for raw in _lines(path):
        torn = not raw.endswith(b"\n")
        event = _parse(raw)
        last = max(last, event.seq) if event else last
    return last, torn
