"""GPU code inside a compiled file: which architectures, as machine code or as PTX, and a hash of each.

The container is NVIDIA's fatbinary: a 16-byte header (magic 0xBA55ED50, version, header size, payload size) and entries
with kind (1 PTX, 2 ELF), header size, payload size, architecture and flags. The layout was read off files made by nvcc
13.0 and agrees with cuobjdump's listing on vLLM's own binaries; flag 0x100000 is the `a` of sm_90a, 0x200000 the `f` of
sm_120f (nvcc 13.0, one kernel per target). Flag 0x2000 says the payload is an LZ4 block, 0x8000 a zstd frame; the size
before compression is the 64-bit number at byte 56 of the entry header.

A kernel built again from the same source at another place has other symbol hashes and debug data but the same machine
code. Entries are hashed as stored first; `by_code` hashes those that found no match by what they do: code sections of
the cubin, instructions of the PTX. Unpacking all entries of a 370 MB wheel takes 40 s, its unmatched ones 1 s.

A bare cubin is an ELF file for machine 190 (EM_CUDA); its target number is in bits 8-15 of e_flags since ELF ABI
version 8, in bits 0-7 before (cubins of nvcc 12.4 and 13.0).
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import lz4.block
import zstandard
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER = struct.Struct("<4sHHQ")
ENTRY = struct.Struct("<HHIQIIHHIIIQ")
SECTIONS = (".nv_fatbin", "__nv_relfatbin")
ARCH_SPECIFIC, FAMILY = 0x100000, 0x200000

STABLE_SECTIONS = (".text", ".rodata", ".data", ".nv_fatbin", "__nv_relfatbin")
"""What a program does. Symbol names, notes, build ids and debug data change with every build, and pointer tables
(.data.rel.ro, .got) with the layout; both are left out."""

EM_CUDA = "EM_CUDA"
CUDA_ABI = 8
CUBIN_SECTIONS = (b".text.", b".nv.constant", b".nv.global.init")
"""Machine code and constants of each kernel. Symbols, attributes by symbol number and debug data are left out."""
SECTION, NOBITS = struct.Struct("<IIQQQQ"), 8
BUILD_HASH = re.compile(rb"(?<=_)[0-9a-f]{8}(?=_)")
PTX_NOISE = re.compile(rb"^\s*\.(loc|file)\b.*|//.*|(?<=_)[0-9a-f]{8}(?=_)|\s+")
LZ4, ZSTD = 0x2000, 0x8000
MOST_PTX = 1 << 20
"""Longer PTX is compared as stored: 3 us a line, and a release has 70 million lines of it."""
MOST_BYTES = 128 << 20
"""A larger payload is hashed as it is stored, so that a damaged size cannot fill the memory."""

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCode:
    """One entry of a fatbinary. `arch` as `sm_90a` (machine code) or `compute_90` (PTX)."""

    arch: str
    digest: str
    at: int = field(default=-1, compare=False)
    """Offset of the entry in the file; no part of what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """A compiled file by content."""

    sections: tuple[tuple[str, str], ...]
    """(name, SHA-256) of each section that has an effect."""
    gpu: tuple[GpuCode, ...]

    @property
    def archs(self) -> tuple[str, ...]:
        """Architectures, each once, by number."""
        return tuple(sorted({code.arch for code in self.gpu}, key=lambda name: (len(name.rstrip("af")), name)))


def read_binary(file: BinaryIO) -> Binary | None:
    """None when the file is neither ELF nor a fatbinary. Sections are read a block at a time; memory stays flat."""
    try:
        file.seek(0)
        start = file.read(4)
        if start == MAGIC:
            gpu = tuple(_entries(file, 0, file.seek(0, 2)))
            return Binary(sections=(), gpu=gpu)
        if start != b"\x7fELF":
            return None
        elf = ELFFile(file)
        if elf["e_machine"] in (EM_CUDA, 190):
            return _cubin(file, elf)
        return _host(file, elf)
    except (ELFError, struct.error, OSError, ValueError, KeyError):
        return None


def _host(file: BinaryIO, elf: ELFFile) -> Binary:
    sections: list[tuple[str, str]] = []
    gpu: list[GpuCode] = []
    for section in elf.iter_sections():
        if section.name not in STABLE_SECTIONS or section["sh_type"] == "SHT_NOBITS":
            continue
        if section.name in SECTIONS:
            gpu += _entries(file, section["sh_offset"], section["sh_size"])
        else:
            sections.append((section.name, _hash(file, section["sh_offset"], section["sh_size"])))
    return Binary(sections=tuple(sections), gpu=tuple(gpu))


def _cubin(file: BinaryIO, elf: ELFFile) -> Binary:
    flags = int(elf["e_flags"])
    number = flags >> 8 & 0xFF if elf["e_ident"]["EI_ABIVERSION"] >= CUDA_ABI else flags & 0xFF
    return Binary(sections=(), gpu=(GpuCode(arch=f"sm_{number}", digest=_kernels(_whole(file))),))


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(MOST_BYTES)


def _kernels(data: bytes) -> str:
    """Hash over the code of a cubin. Section headers are read here: pyelftools takes 0.1 ms each, a cubin has 1,000s.

    Layout: 64-bit little-endian ELF; struct.error or IndexError when it is cut.
    """
    (at,) = struct.unpack_from("<Q", data, 40)
    width, count, names = struct.unpack_from("<HHH", data, 58)
    if count == 0:
        # More than 65,279 sections: the number is in section 0.
        (count,) = struct.unpack_from("<Q", data, at + 32)
    if names == 0xFFFF:
        (names,) = struct.unpack_from("<I", data, at + 40)
    (strings,) = struct.unpack_from("<Q", data, at + names * width + 24)
    parts = []
    for header in range(at, at + count * width, width):
        name, kind, _, _, offset, size = SECTION.unpack_from(data, header)
        start = strings + name
        if kind != NOBITS and data.startswith(CUBIN_SECTIONS, start):
            title = BUILD_HASH.sub(b"", data[start : data.index(b"\0", start)])
            parts.append(title + b" " + hashlib.sha256(memoryview(data)[offset : offset + size]).digest())
    return hashlib.sha256(b"\n".join(sorted(parts))).hexdigest()


def _entries(file: BinaryIO, offset: int, size: int) -> Iterator[GpuCode]:
    end = offset + size
    at = offset
    while at + HEADER.size <= end:
        file.seek(at)
        magic, _, header, payload = HEADER.unpack(file.read(HEADER.size))
        if magic != MAGIC:
            at += 8
            continue
        yield from _fatbinary(file, at + header, min(at + header + payload, end))
        at += header + payload
        at += -at % 8


def _fatbinary(file: BinaryIO, at: int, end: int) -> Iterator[GpuCode]:
    while at + ENTRY.size <= end:
        file.seek(at)
        kind, _, header, size, *_, arch, _, _, flags = ENTRY.unpack(file.read(ENTRY.size))
        if header == 0:
            return
        yield GpuCode(arch=_arch(kind, arch, flags), digest=_hash(file, at + header, size), at=at)
        at += header + size


def by_code(file: BinaryIO, binary: Binary, which: Collection[GpuCode]) -> Binary:
    """The same binary with the entries of `which` hashed by what they do."""
    gpu = []
    for code in binary.gpu:
        digest = _code(file, code.at) if code in which and code.at >= 0 else None
        gpu.append(GpuCode(arch=code.arch, digest=f"code {digest}", at=code.at) if digest else code)
    return Binary(sections=binary.sections, gpu=tuple(gpu))


def _code(file: BinaryIO, at: int) -> str | None:
    """Hash of what the entry does; None when it cannot be unpacked or is neither cubin nor PTX."""
    file.seek(at)
    _, _, header, size, packed, *_, flags = ENTRY.unpack(file.read(ENTRY.size))
    if size > MOST_BYTES or header < 64:
        return None
    file.seek(at + 56)
    (plain,) = struct.unpack("<Q", file.read(8))
    file.seek(at + header)
    data = file.read(size)
    try:
        if flags & (LZ4 | ZSTD):
            if plain > MOST_BYTES:
                return None
            data = _unpacked(data[:packed], plain, flags)
        if data.startswith(b"\x7fELF"):
            return _kernels(data)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, struct.error, ValueError):
        return None
    return _instructions(data.rstrip(b"\0")) if len(data) <= MOST_PTX else None


def _instructions(ptx: bytes) -> str:
    """By line: a regex over the whole text would hold every piece of it at once."""
    digest = hashlib.sha256()
    for line in io.BytesIO(ptx):
        digest.update(PTX_NOISE.sub(b"", line))
    return digest.hexdigest()


def _unpacked(data: bytes, plain: int, flags: int) -> bytes:
    if flags & LZ4:
        return bytes(lz4.block.decompress(data, uncompressed_size=plain))
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _arch(kind: int, number: int, flags: int) -> str:
    suffix = "a" if flags & ARCH_SPECIFIC else "f" if flags & FAMILY else ""
    return f"{'compute' if kind == 1 else 'sm'}_{number}{suffix}"


def _hash(file: BinaryIO, offset: int, size: int) -> str:
    digest = hashlib.sha256()
    file.seek(offset)
    while size > 0:
        data = file.read(min(BLOCK, size))
        if not data:
            break
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()
