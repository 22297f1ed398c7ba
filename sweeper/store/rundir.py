"""The folder of one run.

logs/<run_id>/
  run.json        versions, matrix hash, host facts; written once, whole or not at all
  matrix.yaml     the matrix, byte for byte
  events.jsonl    the record
  lock            held while a sweep writes
  trials/<cell_id>-<attempt>/   server.log  plan.json  samples.json  requests.jsonl.gz  gpu-<workload>-c<N>.jsonl.gz
                                postmortem.json
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeper.core.errors import RecordUnusable, RecordUnwritable, UsageError

LOGS_HINT = "Choose another folder with --logs DIR, or free space."


class RunDir:
    """Paths of a run, and small files written atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def trial(self, trial: str) -> Path:
        """Folder of one trial, made if need be."""
        folder = self.path / "trials" / trial
        _guard(lambda: folder.mkdir(parents=True, exist_ok=True), folder)
        return folder

    def run_json(self) -> dict[str, Any]:
        """Raises RecordUnusable when the folder is not a run."""
        try:
            return dict(json.loads((self.path / "run.json").read_text("utf-8")))
        except FileNotFoundError:
            raise RecordUnusable(f"{self.path} is not a run folder (no run.json)", hint=_list_hint(self.path)) from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
            raise RecordUnusable(f"cannot read {self.path / 'run.json'}: {why}") from None


def create(logs: Path, run_id: str, matrix_text: bytes, facts: Mapping[str, Any]) -> RunDir:
    """A new run folder. Raises RecordUnwritable where `logs` cannot be written."""
    folder = logs / run_id
    _guard(lambda: folder.mkdir(parents=True, exist_ok=False), folder)
    run = RunDir(folder)
    write_bytes(folder / "matrix.yaml", matrix_text)
    write_json(folder / "run.json", facts)
    return run


def find(logs: Path, name: str) -> RunDir:
    """A run by path, id, unique part of the id, or `last`. Raises UsageError naming the candidates."""
    direct = Path(name)
    if (direct / "run.json").exists():
        return RunDir(direct)
    known = sorted(path.parent for path in logs.glob("*/run.json"))
    if name in ("last", "latest") and known:
        return RunDir(max(known, key=lambda path: path.stat().st_mtime))
    hits = [path for path in known if name in path.name]
    if len(hits) == 1:
        return RunDir(hits[0])
    if not hits:
        raise UsageError(f"no run '{name}' under {logs}", hint=_list_hint(logs))
    raise UsageError(f"'{name}' fits {len(hits)} runs: {', '.join(path.name for path in hits[:5])}")


def write_json(path: Path, data: object) -> None:
    """Atomically: a reader sees the old file or the new one."""
    write_bytes(path, json.dumps(data, indent=1, ensure_ascii=False, default=str).encode())


def write_bytes(path: Path, raw: bytes, *, hint: str = LOGS_HINT) -> None:
    """Whole or not at all: temporary file, fsync, rename, folders made. Raises RecordUnwritable with `hint`.

    A pipe or a device (`/dev/stdout`, `/dev/null`, `>(...)`) is written to: it must not be replaced by a file.
    """
    if path.exists() and not path.is_file():
        _guard(lambda: path.write_bytes(raw), path, hint)
        return
    target = path.resolve() if path.is_symlink() else path
    temporary = target.with_name(target.name + ".tmp")

    def work() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    _guard(work, path, hint)


def append_requests(path: Path, requests: Iterable[Mapping[str, Any]]) -> None:
    """Per-request timings, one JSON object a line; gzip members concatenate, so every call adds one."""

    def work() -> None:
        with gzip.open(path, "ab", compresslevel=5) as file:
            for request in requests:
                file.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")

    _guard(work, path)


def read_requests(path: Path) -> list[dict[str, Any]]:
    """What `append_requests` wrote; what comes before a torn end is kept, and without a file there is nothing."""
    rows = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                rows.append(json.loads(line))
    except (OSError, EOFError, ValueError, zlib.error):
        pass
    return rows


def _guard(work: Any, path: Path, hint: str = LOGS_HINT) -> None:
    try:
        work()
    except OSError as error:
        raise RecordUnwritable(f"cannot write {path}: {error.strerror}", hint=hint) from None


def _list_hint(logs: Path) -> str:
    return f"Runs are folders with a run.json: ls {logs}"
