"""Compiled files made by hand, as small as the formats allow."""

from __future__ import annotations

import struct
from collections.abc import Mapping


def fatbin(*codes: tuple[str, bytes]) -> bytes:
    """One fatbinary. Codes as ("sm_90a", payload) or ("compute_90", PTX)."""
    entries = b""
    for arch, payload in codes:
        kind = 1 if arch.startswith("compute") else 2
        number = int(arch.split("_")[1].rstrip("af"))
        flags = 0x11 | (0x100000 if arch.endswith("a") else 0x200000 if arch.endswith("f") else 0)
        payload += b"\0" * (-len(payload) % 8)
        head = struct.pack("<HHIQIIHHIIIQ", kind, 0x101, 64, len(payload), 0, 0, 7, 1, number, 0, 0, flags)
        entries += head + b"\0" * 8 + struct.pack("<Q", 0) + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def elf(sections: Mapping[str, bytes], *, machine: int = 62, flags: int = 0, abi: int = 0) -> bytes:
    """A little-endian 64-bit ELF file with these sections and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    body, headers, at = b"", [struct.pack("<IIQQQQIIQQ", *[0] * 10)], 64
    for name, data in [*sections.items(), (".shstrtab", names)]:
        kind = 3 if name == ".shstrtab" else 1
        where = names.index(b"\0" + name.encode() + b"\0") + 1
        headers.append(struct.pack("<IIQQQQIIQQ", where, kind, 2, 0, at, len(data), 0, 0, 8, 0))
        body += data + b"\0" * (-len(data) % 8)
        at = 64 + len(body)
    ident = b"\x7fELF" + bytes([2, 1, 1, 0, abi]) + b"\0" * 7
    head = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, at, flags, 64, 0, 0, 64, len(headers), len(headers) - 1)
    return ident + head + body + b"".join(headers)


def cubin(code: bytes, *, symbols: bytes = b"x", target: int = 90) -> bytes:
    """A cubin with one kernel; `symbols` stands for all that a rebuild changes."""
    return elf({".text._Z1kPf": code, ".symtab": symbols}, machine=190, flags=target << 8, abi=8)
