"""Two things to compare, each as (relative path, opener): a wheel, a folder, an environment, an image, an archive.

Nothing is unpacked as a whole: a file of an archive is spooled to disk only when it has to be read at random.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, BinaryIO, cast

from sweeper.audit.fatbin import Binary, read_binary
from sweeper.core.errors import BadFile, UsageError

SPOOL_BYTES = 8 << 20
BLOCK = 1 << 20
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


class Form(StrEnum):
    WHEEL = "wheel"
    FOLDER = "folder"
    ENVIRONMENT = "environment"
    IMAGE = "image"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file. `fingerprint` is `SCHEME:VALUE`, a content hash that reading the container gave, None for none."""

    path: str
    size: int
    fingerprint: str | None
    open: Callable[[], IO[bytes]]
    indexed: bool = False
    """`binary` was looked for when the container was read, and the content of large files cannot be had again."""
    binary: Binary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Files of one side by path. `environ`: variables an image sets for what it starts."""

    name: str
    form: Form
    entries: dict[str, Entry]
    environ: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def open_tree(source: str) -> Iterator[Tree]:
    """A folder, virtual environment, `.whl`, `.zip`, `.tar` (also `docker save` and `export`), or `image:NAME`.

    Raises UsageError for what is none, BadFile for a damaged archive.
    """
    path = Path(source)
    if source.startswith("image:"):
        from sweeper.audit.images import open_image

        with open_image(source.removeprefix("image:")) as tree:
            yield tree
    elif path.is_dir():
        packages = site_packages(path)
        form = Form.ENVIRONMENT if packages else Form.FOLDER
        yield Tree(name=source, form=form, entries=_folder(packages or path))
    elif path.is_file():
        with _open_archive(source, path) as tree:
            yield tree
    else:
        raise UsageError(f"{source} does not exist", hint="A Docker image is written image:NAME")


@contextmanager
def _open_archive(source: str, path: Path) -> Iterator[Tree]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                form = Form.WHEEL if path.suffix == ".whl" else Form.ARCHIVE
                yield Tree(name=source, form=form, entries=_zip(archive))
            return
        if tarfile.is_tarfile(path):
            from sweeper.audit.images import open_archive

            with open_archive(source, path) as tree:
                yield tree
            return
    except DAMAGED as error:
        raise BadFile(source, f"damaged: {error or type(error).__name__}", hint=_mend(path)) from None
    except OSError as error:
        raise BadFile(error.filename or source, f"cannot be read: {error.strerror or error}") from None
    if path.suffix in (".whl", ".zip"):
        raise BadFile(source, "no readable zip: cut short or not a wheel", hint=_mend(path))
    raise BadFile(source, "no folder, wheel, zip or tar", hint="A Docker image is written image:NAME")


def _mend(path: Path) -> str:
    return (
        f"Download it again. Test: python -m zipfile -t {path}" if path.suffix in (".whl", ".zip") else "Make it again."
    )


def binary_of(entry: Entry) -> Binary | None:
    """The compiled file by content, None when it is none."""
    if entry.indexed:
        return entry.binary
    with seekable(entry) as file:
        return read_binary(file)


def is_elf(entry: Entry) -> bool:
    """By its first bytes."""
    if entry.indexed:
        return entry.binary is not None
    with entry.open() as stream:
        return stream.read(4) == b"\x7fELF"


@contextmanager
def seekable(entry: Entry) -> Iterator[BinaryIO]:
    """The file for random access; archive members go through a spooled temporary file."""
    with entry.open() as stream:
        if isinstance(stream, io.BufferedReader | io.BytesIO):
            yield cast("BinaryIO", stream)
            return
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            shutil.copyfileobj(stream, spool, BLOCK)
            spool.seek(0)
            yield cast("BinaryIO", spool)


def text_of(entry: Entry, limit: int) -> bytes:
    """The first `limit` bytes."""
    with entry.open() as stream:
        return stream.read(limit)


def same_content(a: Entry, b: Entry) -> bool:
    """Byte for byte, by the hash both containers gave, else by the one that one of them gave, else by SHA-256."""
    if a.size != b.size:
        return False
    scheme = _scheme(a) or _scheme(b) or "sha256"
    if _scheme(b) == "sha256" and not a.indexed:
        scheme = "sha256"
    return _fingerprint(a, scheme) == _fingerprint(b, scheme)


def _scheme(entry: Entry) -> str | None:
    return entry.fingerprint.split(":", 1)[0] if entry.fingerprint else None


def _fingerprint(entry: Entry, scheme: str) -> str:
    if entry.fingerprint and _scheme(entry) == scheme:
        return entry.fingerprint
    crc, sha = 0, hashlib.sha256()
    with entry.open() as stream:
        while data := stream.read(BLOCK):
            if scheme == "crc":
                crc = zlib.crc32(data, crc)
            else:
                sha.update(data)
    return f"crc:{crc:08x}:{entry.size}" if scheme == "crc" else f"sha256:{sha.hexdigest()}:{entry.size}"


def site_packages(folder: Path) -> Path | None:
    """The packages of a virtual environment, when the folder is one."""
    if not (folder / "pyvenv.cfg").is_file():
        return None
    return next(iter(sorted(folder.glob("lib/python3*/site-packages"))), None)


def _folder(root: Path) -> dict[str, Entry]:
    entries = {}
    for path in sorted(root.rglob("*")):
        # Environments made with links instead of copies hold links to files; links to folders are not followed.
        if not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        entries[name] = Entry(path=name, size=path.stat().st_size, fingerprint=None, open=_opener(path))
    return entries


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    def open_file() -> IO[bytes]:
        try:
            return open(path, "rb")
        except OSError as error:
            raise BadFile(str(path), f"cannot be read: {error.strerror or error}") from None

    return open_file


def _zip(archive: zipfile.ZipFile) -> dict[str, Entry]:
    return {
        info.filename: Entry(
            path=info.filename,
            size=info.file_size,
            fingerprint=f"crc:{info.CRC:08x}:{info.file_size}",
            open=_member(archive, info),
        )
        for info in archive.infolist()
        if not info.is_dir()
    }


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    def open_member() -> IO[bytes]:
        try:
            return archive.open(info)
        except RuntimeError as error:
            raise BadFile(str(archive.filename), f"{info.filename}: {error}") from None

    return open_member
