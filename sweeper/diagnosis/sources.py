"""Where the bytes of a log come from: a file (plain, gz, zst), standard input, a container. Bounded memory."""

from __future__ import annotations

import codecs
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from sweeper.core.errors import EnvironmentNotReady, UsageError

CHUNK = 1 << 20
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
CONTAINER = "container:"
_STEP = 1024
_SAMPLE = 1 << 16
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\x0b\x0c\x1b\x08\x00\x07"))


def looks_binary(sample: bytes) -> bool:
    """More than one byte in twenty is a control character that no log writes. NULs do not count: logs that were cut
    while a process held them begin with thousands."""
    sample = sample[:_SAMPLE].replace(b"\x00", b"")
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return controls > len(sample) / 20


@dataclass(slots=True)
class Source:
    """One log. Iterate `chunks()` once; `problem` then says where reading stopped short, or is empty."""

    name: str
    opener: Callable[[Source], Iterator[bytes]]
    problem: str = ""
    exited: bool | None = None
    exit_code: int | None = None

    def chunks(self) -> Iterator[bytes]:
        """Bytes of the log, decompressed, as UTF-8. Raises UsageError where nothing can be read at all."""
        return _as_utf8(self.opener(self))


def open_source(name: str) -> Source:
    """`-` is standard input, `container:NAME` a container's log, anything else a path."""
    if name == "-":
        return Source("-", lambda source: _plain(source, sys.stdin.buffer))
    if name.startswith(CONTAINER):
        return Source(name, lambda source: _container(source, name.removeprefix(CONTAINER)))
    return Source(name, lambda source: _file(source, Path(name)))


def _file(source: Source, path: Path) -> Iterator[bytes]:
    try:
        stream = path.open("rb")
    except IsADirectoryError:
        hint = f"Name the files: sweeper diagnose {path}/*.log"
        raise UsageError(f"{path}: a folder, not a log", hint=hint) from None
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    with stream:
        yield from _plain(source, stream)


def _plain(source: Source, stream: BinaryIO) -> Iterator[bytes]:
    head = stream.read(4)
    if head.startswith(GZIP):
        yield from _gunzip(source, head, stream)
    elif head == ZSTD:
        yield from _unzstd(source, head, stream)
    else:
        rest = _read(source, stream)
        yield head + next(rest, b"")
        yield from rest


def _read(source: Source, stream: BinaryIO) -> Iterator[bytes]:
    read = getattr(stream, "read1", stream.read)
    while True:
        try:
            data = read(CHUNK)
        except OSError as error:
            source.problem = f"reading stopped: {error.strerror or error}"
            return
        if not data:
            return
        yield data


def _gunzip(source: Source, head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    reader = gzip.GzipFile(fileobj=_Rejoined(head, stream), mode="rb")  # type: ignore[call-overload]
    while True:
        try:
            data = reader.read1(CHUNK)
        except (EOFError, OSError, zlib.error) as error:
            source.problem = f"the gzip data ends or breaks here: {error}"
            return
        if not data:
            return
        yield data


def _unzstd(source: Source, head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    # Small steps: a block of zstd can stand for 30,000 times its size.
    pending, decoder, open_frame = head, None, False
    try:
        while pending or (pending := stream.read(_STEP)):
            decoder = decoder or zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
            yield decoder.decompress(pending)
            pending, open_frame = b"", not decoder.eof
            if decoder.eof:
                pending, decoder = decoder.unused_data, None
    except (zstandard.ZstdError, OSError) as error:
        source.problem = f"the zstd data breaks here: {error}"
        return
    if open_frame:
        source.problem = "the zstd data ends in the middle of a frame"


class _Rejoined:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1) -> bytes:
        if self._head:
            size = len(self._head) if size < 0 else size
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._stream.read(size)


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """PowerShell's `>` writes UTF-16: told by the byte order mark."""
    first = b""
    for data in chunks:
        first += data
        if len(first) >= 2:
            break
    encoding = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}.get(first[:2])
    if encoding is None:
        yield first
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(first[2:]).encode("utf-8", "replace")
    for data in chunks:
        yield decoder.decode(data).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _container(source: Source, name: str) -> Iterator[bytes]:
    import docker
    import docker.errors

    if not name:
        raise UsageError(
            "container: needs a name", hint="docker ps -a lists them; then: sweeper diagnose container:NAME"
        )
    try:
        client = docker.from_env()
        container = client.containers.get(name)
    except docker.errors.NotFound:
        raise UsageError(f"no container named {name}", hint="docker ps -a lists them") from None
    except (docker.errors.DockerException, OSError) as error:
        raise EnvironmentNotReady(f"Docker does not answer: {error}", hint="docker info") from None
    state = container.attrs.get("State", {})
    source.exited = state.get("Status") in ("exited", "dead")
    if source.exited:
        source.exit_code = state.get("ExitCode")
    end = b""
    try:
        for end in container.logs(stream=True, follow=False):
            yield end
    except (docker.errors.DockerException, OSError) as error:
        source.problem = f"reading stopped: {getattr(error, 'explanation', None) or error}"
    finally:
        client.close()
    yield from _words_of_docker(state, fresh_line=end.endswith(b"\n") or not end)


def _words_of_docker(state: Mapping[str, Any], *, fresh_line: bool) -> Iterator[bytes]:
    """What Docker knows of the end and no log of the process can hold, as its own tools print it."""
    said = [f"docker: Error response from daemon: {state['Error']}"] if state.get("Error") else []
    said += (
        [f'docker inspect: "OOMKilled": true, "ExitCode": {state.get("ExitCode")}'] if state.get("OOMKilled") else []
    )
    if said:
        yield (b"" if fresh_line else b"\n") + "".join(f"{line}\n" for line in said).encode()
