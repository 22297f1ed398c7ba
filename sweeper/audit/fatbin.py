"""GPU code inside a compiled file: which architectures, as machine code or as PTX, and a hash of each.

The container is NVIDIA's fatbinary: a 16-byte header (magic 0xBA55ED50, version, header size, payload size) and entries
with kind (1 PTX, 2 ELF), header size, payload size, architecture and flags. The layout was read off files made by nvcc
13.0 and agrees with cuobjdump's listing on vLLM's own binaries; flag 0x100000 is the `a` of sm_90a, 0x200000 the `f` of
sm_120f (nvcc 13.0, one kernel per target).

A bare cubin is an ELF file for machine 190 (EM_CUDA); its target number is in bits 8-15 of e_flags since ELF ABI
version 8, in bits 0-7 before (cubins of nvcc 12.4 and 13.0).
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

STABLE_SECTIONS = (".text", ".rodata", ".data", ".nv_fatbin", "__nv_relfatbin")
"""What a program does. Symbol names, notes, build ids and debug data change with every build, and pointer tables
(.data.rel.ro, .got) with the layout; both are left out."""

EM_CUDA = "EM_CUDA"
CUDA_ABI = 8
CUBIN_SECTIONS = (".text.", ".nv.constant", ".nv.info", ".nv.global.init", ".nv.shared")
"""Machine code, constants and register or barrier needs of each kernel; debug data and notes are left out."""

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
    parts = sorted(
        f"{section.name} {_hash(file, section['sh_offset'], section['sh_size'])}"
        for section in elf.iter_sections()
        if section.name.startswith(CUBIN_SECTIONS) and section["sh_type"] != "SHT_NOBITS"
    )
    flags = int(elf["e_flags"])
    number = flags >> 8 & 0xFF if elf["e_ident"]["EI_ABIVERSION"] >= CUDA_ABI else flags & 0xFF
    code = GpuCode(arch=f"sm_{number}", digest=hashlib.sha256("\n".join(parts).encode()).hexdigest())
    return Binary(sections=(), gpu=(code,))


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
