"""Two things to compare, each as (relative path, opener): a wheel, a folder, an environment, an image, an archive.

Nothing is unpacked as a whole: a file of an archive is spooled to disk only when it has to be read at random.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from sweeper.core.errors import UsageError

SPOOL_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file. `fingerprint` is a content hash that the container gives for free, None where it gives none."""

    path: str
    size: int
    fingerprint: str | None
    open: Callable[[], IO[bytes]]


class Tree:
    """Files of one side by path."""

    def __init__(self, name: str, entries: dict[str, Entry]) -> None:
        self.name = name
        self.entries = entries


@contextmanager
def open_tree(source: str) -> Iterator[Tree]:
    """A folder, `.whl` or `.zip`, `.tar` (also `docker save`), or `image:NAME`. Raises UsageError for what is none."""
    path = Path(source)
    if source.startswith("image:"):
        from sweeper.audit.images import open_image

        with open_image(source.removeprefix("image:")) as tree:
            yield tree
    elif path.is_dir():
        yield Tree(source, _folder(_site_packages(path) or path))
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield Tree(source, _zip(archive))
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive_:
            yield Tree(source, _tar(archive_))
    elif path.exists():
        raise UsageError(
            f"{source} is no folder, wheel, zip or tar, or it is damaged", hint="Try: python -m zipfile -t FILE"
        )
    else:
        raise UsageError(f"{source} does not exist", hint="A Docker image is written image:NAME")


@contextmanager
def seekable(entry: Entry) -> Iterator[BinaryIO]:
    """The file for random access; archive members go through a spooled temporary file."""
    with entry.open() as stream:
        if isinstance(stream, IO | tempfile.SpooledTemporaryFile) or _plain(stream):
            yield cast("BinaryIO", stream)
            return
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            shutil.copyfileobj(stream, spool, 1 << 20)
            spool.seek(0)
            yield cast("BinaryIO", spool)


def _plain(stream: IO[bytes]) -> bool:
    return hasattr(stream, "fileno") and type(stream).__module__ in ("_io", "io")


def _site_packages(folder: Path) -> Path | None:
    """The packages of a virtual environment, when the folder is one."""
    if not (folder / "pyvenv.cfg").is_file():
        return None
    return next(iter(sorted(folder.glob("lib/python3*/site-packages"))), None)


def _folder(root: Path) -> dict[str, Entry]:
    entries = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        entries[name] = Entry(path=name, size=path.stat().st_size, fingerprint=None, open=_opener(path))
    return entries


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: open(path, "rb")


def _zip(archive: zipfile.ZipFile) -> dict[str, Entry]:
    return {
        info.filename: Entry(
            path=info.filename,
            size=info.file_size,
            fingerprint=f"crc:{info.CRC:08x}:{info.file_size}",
            open=lambda info=info: archive.open(info),  # type: ignore[misc]
        )
        for info in archive.infolist()
        if not info.is_dir()
    }


def _tar(archive: tarfile.TarFile) -> dict[str, Entry]:
    return {
        member.name.removeprefix("./"): Entry(
            path=member.name.removeprefix("./"),
            size=member.size,
            fingerprint=None,
            open=lambda member=member: cast("IO[bytes]", archive.extractfile(member)),  # type: ignore[misc]
        )
        for member in archive
        if member.isfile()
    }
