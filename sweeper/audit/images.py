"""An image, or any tar, in one pass: a hash of every file, the binaries by section, the text of sources.

A Docker image is read as the file system a container of it would see (`docker export` of a container that is created
and never started). A `docker save` archive is a tar of layers: a later layer replaces files of an earlier one, a file
`.wh.NAME` removes NAME, `.wh..wh..opq` removes all that earlier layers put into its folder (OCI image specification,
"Whiteouts").
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from sweeper.audit.fatbin import Binary, read_binary
from sweeper.audit.kinds import of_the_system
from sweeper.audit.trees import BLOCK, SPOOL_BYTES, Entry, Form, Tree
from sweeper.core.errors import BadFile, EnvironmentNotReady, LaunchFailed, UsageError
from sweeper.launchers.labels import Mark, this_owner

TEXT_BYTES = 2 << 20
"""Larger sources are compared by hash only."""
KEPT = (
    ".py", ".pth", ".cu", ".cuh", ".inl", ".hpp", ".cpp", ".cc", ".c", ".h", ".hip", ".ptx", ".cutlass", ".json",
    ".yaml", ".yml", ".toml", ".ini", ".cfg", ".env", ".jinja", ".sh", ".conf", ".txt", "METADATA", "PKG-INFO",
    ".preload",
)  # fmt: skip
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


class Index:
    """Files seen so far. Texts go to one temporary file, binaries are hashed and dropped."""

    def __init__(self, texts: IO[bytes]) -> None:
        self.entries: dict[str, Entry] = {}
        self._texts = texts

    def add_tar(self, archive: tarfile.TarFile, *, layer: bool = False) -> None:
        for member in archive:
            path = member.name.removeprefix("./").lstrip("/")
            name = path.rsplit("/", 1)[-1]
            if layer and name.startswith(WHITEOUT):
                self._remove(path, name)
            elif member.islnk():
                self._link(path, member.linkname.removeprefix("./").lstrip("/"))
            elif member.isreg() and not of_the_system(path):
                stream = archive.extractfile(member)
                if stream is not None:
                    self.entries[path] = self._entry(path, member.size, stream)

    def add_file(self, path: str, size: int, stream: IO[bytes]) -> None:
        """One file that comes from elsewhere than a whole tar."""
        self.entries[path] = self._entry(path, size, stream)

    def add_text(self, path: str, text: str) -> None:
        """A setting that is no file of its own, such as the environment an image sets."""
        self.entries[path] = self._entry(path, len(text.encode()), io.BytesIO(text.encode()))

    def _remove(self, path: str, name: str) -> None:
        folder = path[: -len(name)]
        if name == OPAQUE:
            gone = [known for known in self.entries if known.startswith(folder)]
        else:
            target = folder + name.removeprefix(WHITEOUT)
            gone = [known for known in self.entries if known == target or known.startswith(target + "/")]
        for known in gone:
            del self.entries[known]

    def _link(self, path: str, target: str) -> None:
        known = self.entries.get(target)
        if known is not None:
            self.entries[path] = Entry(
                path=path,
                size=known.size,
                fingerprint=known.fingerprint,
                open=known.open,
                indexed=True,
                binary=known.binary,
            )

    def _entry(self, path: str, size: int, stream: IO[bytes]) -> Entry:
        digest, binary = hashlib.sha256(), None
        at = self._texts.seek(0, 2)
        keep = size <= TEXT_BYTES and path.endswith(KEPT)
        first = stream.read(BLOCK)
        if first.startswith((b"\x7fELF", b"\x50\xed\x55\xba")):
            binary = _binary(first, stream, digest)
        else:
            while first:
                digest.update(first)
                if keep:
                    self._texts.write(first)
                first = stream.read(BLOCK)
        return Entry(
            path=path,
            size=size,
            fingerprint=f"sha256:{digest.hexdigest()}:{size}",
            open=self._opener(at, size if keep else 0),
            indexed=True,
            binary=binary,
        )

    def _opener(self, at: int, size: int) -> Callable[[], IO[bytes]]:
        def open_text() -> IO[bytes]:
            self._texts.seek(at)
            return io.BytesIO(self._texts.read(size))

        return open_text


def _binary(first: bytes, stream: IO[bytes], digest: Any) -> Binary | None:
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        while first:
            digest.update(first)
            spool.write(first)
            first = stream.read(BLOCK)
        return read_binary(cast("Any", spool))


@contextmanager
def open_archive(source: str, path: Path) -> Iterator[Tree]:
    """A tar: `docker save`, `docker export`, a source distribution, or a folder packed by hand."""
    with tempfile.TemporaryFile() as texts:
        index = Index(texts)
        with tarfile.open(path) as archive:
            layers, config = _layout(source, archive)
            if layers is None:
                index.add_tar(archive)
                yield Tree(name=source, form=Form.ARCHIVE, entries=_below_one_folder(index.entries))
                return
            for name in layers:
                with _layer(source, archive, name) as layer:
                    index.add_tar(layer, layer=True)
        yield _image(source, index, config)


@contextmanager
def _layer(source: str, archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarFile]:
    stream = _named(source, archive, name)
    with stream, tarfile.open(fileobj=stream, mode="r:*") as layer:
        yield layer


def _named(source: str, archive: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise BadFile(source, f"names {name}, which it does not hold", hint="Save the image again: docker save")
    return stream


def _layout(source: str, archive: tarfile.TarFile) -> tuple[list[str] | None, dict[str, Any]]:
    """Layers and configuration when the tar is a saved image."""
    try:
        member = archive.getmember("manifest.json")
    except KeyError:
        return None, {}
    try:
        manifest = json.load(cast("IO[bytes]", archive.extractfile(member)))
        layers, config = manifest[0]["Layers"], manifest[0]["Config"]
    except (ValueError, LookupError, TypeError):
        return None, {}
    return list(layers), dict(json.load(_named(source, archive, config)).get("config") or {})


def _below_one_folder(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Source archives put everything below NAME-VERSION/, which is no part of the paths."""
    tops = {path.split("/", 1)[0] for path in entries}
    if len(tops) != 1 or not all("/" in path for path in entries):
        return entries
    cut = len(tops.pop()) + 1
    return {path[cut:]: replace(entry, path=path[cut:]) for path, entry in entries.items()}


def _image(name: str, index: Index, config: dict[str, Any]) -> Tree:
    return Tree(name=name, form=Form.IMAGE, entries=index.entries, environ=add_settings(index, config))


def add_settings(index: Index, config: dict[str, Any]) -> dict[str, str]:
    """What an image or container sets for its program, as files `(image)/...`; returns the environment."""
    environ = dict(item.partition("=")[::2] for item in config.get("Env") or [])
    index.add_text("(image)/environment", "".join(f"{key}={environ[key]}\n" for key in sorted(environ)))
    for key in ("Entrypoint", "Cmd"):
        index.add_text(f"(image)/{key.lower()}", "".join(f"{part}\n" for part in config.get(key) or []))
    return environ


@contextmanager
def open_image(name: str) -> Iterator[Tree]:
    """An image of this machine's Docker. Raises UsageError when it is not here, EnvironmentNotReady without Docker."""
    with created(name) as (image, container), tempfile.TemporaryFile() as texts:
        index = Index(texts)
        with tarfile.open(fileobj=Chunks(container.export(chunk_size=BLOCK)), mode="r|") as archive:
            index.add_tar(archive)
        yield _image(f"image:{name}", index, image.attrs.get("Config") or {})


@contextmanager
def created(name: str) -> Iterator[tuple[Any, Any]]:
    """(image, a container of it that is never started and removed afterwards)."""
    from docker.errors import DockerException, ImageNotFound

    with docker_client() as client:
        try:
            image = client.images.get(name)
            container = client.containers.create(image.id, command=["true"], network_disabled=True, labels=_labels())
        except ImageNotFound:
            raise UsageError(f"no image {name} on this machine", hint=f"Try: docker pull {name}") from None
        except DockerException as error:
            raise EnvironmentNotReady(f"Docker refused to open {name}: {error}") from None
        try:
            yield image, container
        finally:
            with suppress(DockerException):
                container.remove(force=True)


def _labels() -> dict[str, str]:
    """So that `sweeper clean` removes the container if this process is killed."""
    return Mark(run_id="audit", trial="audit", owner=this_owner()).labels()


@contextmanager
def docker_client() -> Iterator[Any]:
    """Where the user's own `docker` would connect. Raises EnvironmentNotReady."""
    from sweeper.launchers.docker_client import connect

    try:
        client = connect()
    except LaunchFailed as error:
        raise EnvironmentNotReady(error.message, hint=error.hint) from None
    try:
        yield client
    finally:
        client.close()


class Chunks(io.RawIOBase):
    """The pieces of a download as one stream for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), b""

    def read(self, size: int = -1) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while size < 0 or have < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        cut = len(data) if size < 0 else size
        self._rest = data[cut:]
        return data[:cut]
