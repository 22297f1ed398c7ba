"""GPU code inside a compiled file: which architectures, as machine code or as PTX, and a hash of each.

The container is NVIDIA's fatbinary: a 16-byte header (magic 0xBA55ED50, version, header size, payload size) and entries
with kind (1 PTX, 2 ELF), header size, payload size, architecture and flags. The layout was read off files made by nvcc
13.0 and agrees with cuobjdump's listing on vLLM's own binaries; flag 0x100000 is the `a` of sm_90a, 0x200000 the `f` of
sm_120f (nvcc 13.0, one kernel per target).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER = struct.Struct("<4sHHQ")
ENTRY = struct.Struct("<HHIQIIHHIIIQ")
SECTIONS = (".nv_fatbin", "__nv_relfatbin")
ARCH_SPECIFIC, FAMILY = 0x100000, 0x200000

STABLE_SECTIONS = (".text", ".rodata", ".data", ".data.rel.ro", ".nv_fatbin", "__nv_relfatbin")
"""What a program does. Symbol names, notes, build ids and debug data change with every build."""

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCode:
    """One entry of a fatbinary. `arch` as `sm_90a` (machine code) or `compute_90` (PTX)."""

    arch: str
    digest: str


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
    """None when the file is no ELF. Sections are read a block at a time, so memory stays flat for large files."""
    try:
        elf = ELFFile(file)
        sections, gpu = [], []
        for section in elf.iter_sections():
            if section.name not in STABLE_SECTIONS or section["sh_type"] == "SHT_NOBITS":
                continue
            if section.name in SECTIONS:
                entries = tuple(_entries(file, section["sh_offset"], section["sh_size"]))
                gpu += entries
                digest = hashlib.sha256("".join(sorted(f"{e.arch}{e.digest}" for e in entries)).encode()).hexdigest()
            else:
                digest = _hash(file, section["sh_offset"], section["sh_size"])
            sections.append((section.name, digest))
    except (ELFError, struct.error, OSError, ValueError):
        return None
    return Binary(sections=tuple(sections), gpu=tuple(gpu))


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
        yield GpuCode(arch=_arch(kind, arch, flags), digest=_hash(file, at + header, size))
        at += header + size


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
