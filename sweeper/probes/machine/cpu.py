"""What the CPU and the page cache look like before a launch: both change start-up and time to first token.

Linux only; elsewhere, and inside containers that hide it, a fact is None.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuState:
    """`governors` and `mhz`: over all cores that say; `pressure_share`: time in the last 10 s in which work waited."""

    governors: tuple[str, ...] = ()
    mhz: tuple[float, float] | None = None
    """Lowest and highest core now."""
    load_1m: float | None = None
    cores: int | None = None
    pressure_share: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCache:
    """Memory that files may use, and how much of a checkpoint is in it already. Bytes."""

    cached_bytes: int | None = None
    """Of all files on this machine."""
    available_bytes: int | None = None
    checkpoint_bytes: int | None = None
    checkpoint_cached_bytes: int | None = None
    """None: no checkpoint named, or the kernel tells only the owner of the files."""

    @property
    def warm_share(self) -> float | None:
        """Share of the checkpoint that needs no disk; None where unknown."""
        if self.checkpoint_cached_bytes is None or not self.checkpoint_bytes:
            return None
        return self.checkpoint_cached_bytes / self.checkpoint_bytes


def cpu_state(root: Path = Path("/")) -> CpuState:
    """`root` is where /proc and /sys hang."""
    cpus = root / "sys/devices/system/cpu"
    governors = tuple(sorted({_text(p) for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}))
    khz = [int(t) for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (t := _text(p)).isdigit()]
    load = _text(root / "proc/loadavg").split()
    cores = len(list(cpus.glob("cpu[0-9]*"))) or None
    load_1m = float(load[0]) if load else None
    notes = []
    if any(name != "performance" for name in governors):
        notes.append(
            f"CPU governor {', '.join(governors)}: time to first token varies; cpupower frequency-set -g performance"
        )
    if load_1m is not None and cores and load_1m > 0.5 * cores:
        notes.append(f"load {load_1m:.1f} on {cores} cores before the launch: something else is running")
    return CpuState(
        governors=governors,
        mhz=(min(khz) / 1000, max(khz) / 1000) if khz else None,
        load_1m=load_1m,
        cores=cores,
        pressure_share=_pressure(_text(root / "proc/pressure/cpu")),
        notes=tuple(notes),
    )


def _pressure(text: str) -> float | None:
    for line in text.splitlines():
        if line.startswith("some"):
            values = dict(part.split("=") for part in line.split()[1:])
            return float(values["avg10"]) / 100
    return None


def page_cache(checkpoint: Path | None = None, root: Path = Path("/")) -> PageCache:
    """`checkpoint`: a folder of weight files or one file. A cold cache explains a slow load, not a slow server."""
    memory = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    files = _weights(checkpoint) if checkpoint else []
    resident = [cached_bytes(file) for file in files]
    return PageCache(
        cached_bytes=_kib(memory.get("Cached")),
        available_bytes=_kib(memory.get("MemAvailable")),
        checkpoint_bytes=sum(file.stat().st_size for file in files) if files else None,
        checkpoint_cached_bytes=None if not files or None in resident else sum(r for r in resident if r is not None),
    )


def _weights(checkpoint: Path) -> list[Path]:
    if checkpoint.is_file():
        return [checkpoint]
    return sorted(p for kind in ("*.safetensors", "*.gguf", "*.bin") for p in checkpoint.glob(kind) if p.is_file())


def cached_bytes(path: Path) -> int | None:
    """Bytes of a file that are in the page cache, by mincore(2).

    None where that cannot be known: since Linux 5.2 the kernel answers "all" to processes that neither own the file nor
    may write it.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        size = path.stat().st_size
        if size == 0:
            return 0
        if path.stat().st_uid != os.geteuid() and not os.access(path, os.W_OK):
            return None
        with path.open("rb") as file:
            return sum(
                _resident(file.fileno(), start, min(CHUNK_BYTES, size - start)) for start in range(0, size, CHUNK_BYTES)
            )
    return None


def _resident(descriptor: int, start: int, length: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    pages = -(-length // page)
    # A private copy-on-write mapping, because ctypes takes the address of writable buffers only; nothing is written.
    with mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY, offset=start) as view:
        anchor = ctypes.c_char.from_buffer(view)
        vector = (ctypes.c_ubyte * pages)()
        status = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(length), vector)
        error = ctypes.get_errno()
        del anchor
    if status != 0:
        raise OSError(error, os.strerror(error))
    resident = sum(flag & 1 for flag in bytes(vector))
    return min(length, resident * page)


def _kib(text: str | None) -> int | None:
    return int(text.split()[0]) * 1024 if text else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
