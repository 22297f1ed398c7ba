"""Archives of a report: written with the same bytes for the same report, read with distrust.

One folder inside; `.tar.gz` or `.zip`. Reading takes plain files with plain names only, and stops at limits that no
report of ours comes near.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from sweeper.bugreport.contents import SCHEMA
from sweeper.core.errors import UsageError
from sweeper.store.rundir import write_bytes

MAX_FILES = 200
MAX_BYTES = 256 << 20
"""Of all files together, unpacked."""
_EXECUTABLE = (".sh",)
_ZIP_STAMP = (1980, 1, 1, 0, 0, 0)


class BadArchive(UsageError):
    """Not an archive of ours, damaged, dangerous, or newer than this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A report read back: its manifest, and its files by path inside the folder."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]


def write(path: Path, folder: str, files: Mapping[str, bytes]) -> None:
    """Whole or not at all. Raises UsageError for another suffix, EnvironmentNotReady where it cannot be written."""
    write_bytes(path, pack(path.name, folder, files), hint="Choose another: --out FILE")


def pack(name: str, folder: str, files: Mapping[str, bytes]) -> bytes:
    """The archive's bytes; `name` decides the kind. Raises UsageError for one that is neither."""
    if name.endswith(".zip"):
        return _zip(folder, files)
    if name.endswith((".tar.gz", ".tgz")):
        return _tar(folder, files)
    raise UsageError(f"{name}: the archive's name must end in .tar.gz or .zip")


def _tar(folder: str, files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(data), 0o755 if name.endswith(_EXECUTABLE) else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), compresslevel=9, mtime=0)


def _zip(folder: str, files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{folder}/{name}", date_time=_ZIP_STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if name.endswith(_EXECUTABLE) else 0o100644) << 16
            archive.writestr(entry, data)
    return raw.getvalue()


def read(path: Path) -> Opened:
    """An archive, or the folder it was unpacked to. Raises BadArchive with what is wrong."""
    try:
        raw = dict(_of_folder(path) if path.is_dir() else _members(path))
    except FileNotFoundError:
        raise BadArchive(f"{path}: no such file", hint=f"Look with: ls {path.parent}") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError) as error:
        raise BadArchive(f"{path}: damaged, or not an archive: {error}") from None
    except (OSError, RuntimeError) as error:
        raise BadArchive(f"{path}: cannot be read: {error}") from None
    files = raw if path.is_dir() else _without_top(path, raw)
    manifest = _manifest(path, files)
    _check_sums(path, manifest, files)
    return Opened(manifest=manifest, files=files)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:2] == b"PK":
        yield from _zip_members(path)
    elif start[:2] == b"\x1f\x8b":
        yield from _tar_members(path)
    else:
        raise BadArchive(f"{path}: neither .tar.gz nor .zip by its first bytes")


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    left = MAX_BYTES
    with gzip.open(path, "rb") as plain, tarfile.open(fileobj=_bounded(plain, path), mode="r|") as archive:
        for number, member in enumerate(archive):
            if member.isdir():
                continue
            if not member.isreg():
                raise BadArchive(f"{path}: {member.name!r} is a link or a device: not unpacked")
            name = _safe(path, member.name, number)
            left = _allow(path, left, member.size)
            stream = archive.extractfile(member)
            yield name, stream.read() if stream else b""


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    left = MAX_BYTES
    with zipfile.ZipFile(path) as archive:
        for number, member in enumerate(archive.infolist()):
            kind = (member.external_attr >> 16) & 0o170000
            if member.is_dir():
                continue
            if kind not in (0, 0o100000):
                raise BadArchive(f"{path}: {member.filename!r} is a link or a device: not unpacked")
            name = _safe(path, member.filename, number)
            _allow(path, left, member.file_size)
            with archive.open(member) as stream:
                # The size in the directory may lie: what comes out counts.
                data = stream.read(left + 1)
            left = _allow(path, left, len(data))
            yield name, data


def _bounded(plain: gzip.GzipFile, path: Path) -> IO[bytes]:
    return cast("IO[bytes]", _Bounded(plain, path))


class _Bounded:
    """A reader that stops after MAX_BYTES and some room for headers: sizes in a tar may lie too."""

    def __init__(self, inner: gzip.GzipFile, path: Path) -> None:
        self._inner, self._path, self._left = inner, path, MAX_BYTES + (4 << 20)

    def read(self, size: int) -> bytes:
        data = self._inner.read(size)
        self._left = _allow(self._path, self._left, len(data))
        return data


def _allow(path: Path, left: int, size: int) -> int:
    if size > left:
        raise BadArchive(f"{path}: unpacks to more than {MAX_BYTES >> 20} MiB: not unpacked")
    return left - size


def _safe(path: Path, name: str, number: int) -> str:
    if number >= MAX_FILES:
        raise BadArchive(f"{path}: more than {MAX_FILES} files: not unpacked")
    parts = PurePosixPath(name).parts
    bad = not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name
    if bad or len(name) > 400:
        raise BadArchive(f"{path}: {name[:80]!r} leads out of the archive's folder: not unpacked")
    return "/".join(parts)


def _of_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files that the manifest names, and it; whatever else lies in the folder is left alone."""
    described = path / "manifest.json"
    found = {described.name: described.read_bytes()} if described.is_file() else {}
    names = _listed(path, _manifest(path, found))
    yield from found.items()
    for number, name in enumerate(names):
        file = path / _safe(path, name, number)
        if file.is_file() and not file.is_symlink():
            yield name, file.read_bytes()


def _without_top(path: Path, raw: Mapping[str, bytes]) -> dict[str, bytes]:
    tops = {name.split("/")[0] for name in raw}
    if len(tops) != 1 or any("/" not in name for name in raw):
        raise BadArchive(f"{path}: not a report of sweeper: it holds {len(tops)} entries, a report holds one folder")
    return {name.split("/", 1)[1]: data for name, data in raw.items()}


def _manifest(path: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    if "manifest.json" not in files:
        raise BadArchive(f"{path}: not a report of sweeper: no manifest.json")
    try:
        data = json.loads(files["manifest.json"])
    except (ValueError, RecursionError) as error:
        raise BadArchive(f"{path}: manifest.json: not JSON: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise BadArchive(f"{path}: manifest.json: schema: missing, or not a number")
    if schema > SCHEMA:
        by = f" by sweeper {data['sweeper']}" if data.get("sweeper") else ""
        raise BadArchive(
            f"{path}: written{by} in form {schema} of the archive; this version reads up to {SCHEMA}",
            hint="Upgrade: pip install --upgrade sweeper   (or run its reproducer/reproduce.sh)",
        )
    return dict(data)


def _listed(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    entries = manifest.get("files")
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("path"), str) for e in entries
    ):
        raise BadArchive(f"{path}: manifest.json: files: not a list of files")
    return [entry["path"] for entry in entries]


def _check_sums(path: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    names = _listed(path, manifest)
    for name, entry in zip(names, manifest["files"], strict=True):
        if name not in files:
            raise BadArchive(f"{path}: incomplete: {name} is missing")
        if hashlib.sha256(files[name]).hexdigest() != entry.get("sha256"):
            raise BadArchive(f"{path}: {name} differs from what the manifest says: damaged or edited")
