"""Compiled files by content: sections, GPU architectures, kernels that were only built again."""

from __future__ import annotations

import io
import struct

import lz4.block
import pytest
import zstandard
from audit.builders import cubin, elf, fatbin

from sweeper.audit.fatbin import by_code, read_binary
from sweeper.audit.kinds import Level
from sweeper.audit.whole import run_audit


def library(code: bytes, *gpu: tuple[str, bytes], note: bytes = b"n") -> bytes:
    return elf({".text": code, ".nv_fatbin": fatbin(*gpu), ".note.gnu.build-id": note, ".comment": note})


def test_architectures_are_listed_with_their_suffix_and_ptx_apart() -> None:
    gpu = [("sm_90a", b"1" * 8), ("sm_120f", b"2" * 8), ("sm_80", b"3" * 8), ("compute_90", b"4" * 8)]
    binary = read_binary(io.BytesIO(library(b"host", *gpu)))
    assert binary is not None
    assert binary.archs == ("sm_80", "sm_90a", "sm_120f", "compute_90")


def test_several_fatbinaries_of_one_section_are_all_read() -> None:
    data = elf({".nv_fatbin": fatbin(("sm_80", b"1" * 8)) + fatbin(("sm_100a", b"2" * 24)), ".text": b"host"})
    binary = read_binary(io.BytesIO(data))
    assert binary is not None
    assert binary.archs == ("sm_80", "sm_100a")


def test_a_cubin_tells_its_target() -> None:
    binary = read_binary(io.BytesIO(cubin(b"code", target=120)))
    assert binary is not None
    assert binary.archs == ("sm_120",)


def test_text_is_no_binary() -> None:
    assert read_binary(io.BytesIO(b"no elf at all")) is None
    assert read_binary(io.BytesIO(b"\x7fELF cut")) is None


def test_build_ids_and_comments_do_not_make_a_difference(wheel: object) -> None:
    a = wheel("a", {"e/_C.so": library(b"host", ("sm_90", b"k" * 8), note=b"1")})  # type: ignore[operator]
    b = wheel("b", {"e/_C.so": library(b"host", ("sm_90", b"k" * 8), note=b"2")})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b))
    assert (result.verdict, result.files) == (Level.IDENTICAL, ())
    assert result.archs_b == {"e/_C.so": ("sm_90",)}


def test_changed_gpu_code_is_counted(wheel: object) -> None:
    a = wheel("a", {"e/_C.so": library(b"host", ("sm_90", b"k" * 8), ("sm_80", b"k" * 8))})  # type: ignore[operator]
    b = wheel("b", {"e/_C.so": library(b"host", ("sm_90", b"K" * 8), ("sm_80", b"k" * 8))})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b))
    assert result.verdict is Level.KERNEL
    assert result.files[0].detail == "GPU code: 1 entries same, 1 only in A, 1 only in B"


def test_a_changed_host_library_without_gpu_code_is_a_kernel_change(wheel: object) -> None:
    a = wheel("a", {"e/ext.so": elf({".text": b"one"})})  # type: ignore[operator]
    b = wheel("b", {"e/ext.so": elf({".text": b"two"})})  # type: ignore[operator]
    assert run_audit(str(a), str(b))[0].verdict is Level.KERNEL


def test_a_kernel_built_again_is_recognised_by_its_machine_code(wheel: object) -> None:
    a = wheel("a", {"e/_C.so": library(b"1", ("sm_90", cubin(b"code", symbols=b"a")))})  # type: ignore[operator]
    b = wheel("b", {"e/_C.so": library(b"2", ("sm_90", cubin(b"code", symbols=b"b")))})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b))
    assert result.gpu_code_same
    assert result.files[0].detail == "GPU code: all 1 entries same (1 built again); host code differs in .text"


def test_machine_code_that_changed_is_not_taken_for_built_again(wheel: object) -> None:
    a = wheel("a", {"e/_C.so": library(b"1", ("sm_90", cubin(b"code")))})  # type: ignore[operator]
    b = wheel("b", {"e/_C.so": library(b"1", ("sm_90", cubin(b"CODE")))})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b))
    assert not result.gpu_code_same
    assert result.verdict is Level.KERNEL


@pytest.mark.parametrize("flag", [0x2000, 0x8000])
def test_compressed_entries_are_compared_by_machine_code(flag: int) -> None:
    def packed(symbols: bytes) -> bytes:
        plain = cubin(b"code" * 50, symbols=symbols)
        small = lz4.block.compress(plain, store_size=False) if flag == 0x2000 else zstandard.compress(plain)
        data = small + b"\0" * (-len(small) % 8)
        head = struct.pack("<HHIQIIHHIIIQ", 2, 0x101, 64, len(data), len(small), 0, 7, 1, 90, 0, 0, 0x11 | flag)
        entry = head + b"\0" * 8 + struct.pack("<Q", len(plain)) + data
        return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entry)) + entry

    one, two = io.BytesIO(packed(b"a")), io.BytesIO(packed(b"b"))
    old, new = read_binary(one), read_binary(two)
    assert old is not None
    assert new is not None
    assert old.gpu != new.gpu
    assert by_code(one, old, old.gpu).gpu == by_code(two, new, new.gpu).gpu


def test_a_lost_architecture_is_visible_on_both_sides(wheel: object) -> None:
    a = wheel("a", {"e/_C.so": library(b"h", ("sm_90", b"k" * 8), ("sm_120a", b"k" * 8))})  # type: ignore[operator]
    b = wheel("b", {"e/_C.so": library(b"h", ("sm_90", b"k" * 8))})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b))
    assert result.archs_a == {"e/_C.so": ("sm_90", "sm_120a")}
    assert result.archs_b == {"e/_C.so": ("sm_90",)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("e.libs/libgomp-a34b3233.so.1.0.0", "e.libs/libgomp-98df21ab.so.1"),
        ("e/_C.cpython-311-x86_64-linux-gnu.so", "e/_C.cpython-312-x86_64-linux-gnu.so"),
        ("e/_C.abi3.so", "e/_C.cpython-312-x86_64-linux-gnu.so"),
    ],
)
def test_hashes_and_python_versions_in_names_are_no_difference(wheel: object, old: str, new: str) -> None:
    data = library(b"host", ("sm_90", b"k" * 8))
    result, _ = run_audit(str(wheel("a", {old: data})), str(wheel("b", {new: data})))  # type: ignore[operator]
    assert (result.verdict, result.files) == (Level.IDENTICAL, ())
