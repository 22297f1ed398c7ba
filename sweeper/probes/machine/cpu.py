"""What the CPU and the page cache look like before a launch: both change start-up and time to first token.

Linux only; elsewhere, and inside containers that hide it, a fact is None.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from pathlib import Path

import numpy as np

from sweeper.core.machinestate import CpuState, PageCache

CHUNK_BYTES = 1 << 30
LOOK_S = 0.1


def cpu_state(root: Path = Path("/"), *, look_s: float = LOOK_S) -> CpuState:
    """`root` is where /proc and /sys hang; `look_s`: how long the cores are watched."""
    cpus = root / "sys/devices/system/cpu"
    governors = tuple(sorted({_text(p) for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}))
    khz = [int(t) for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (t := _text(p)).isdigit()]
    before = _ticks(root)
    time.sleep(look_s)
    after = _ticks(root)
    cores = len(list(cpus.glob("cpu[0-9]*"))) or None
    return CpuState(
        governors=governors,
        mhz=(min(khz) / 1000, max(khz) / 1000) if khz else None,
        cores=cores,
        busy_cores=_busy(before, after, cores),
    )


def _ticks(root: Path) -> tuple[int, int] | None:
    """(idle, all) ticks of all cores together, proc(5): user nice system idle iowait irq softirq steal."""
    for line in _text(root / "proc/stat").splitlines():
        if line.startswith("cpu "):
            ticks = [int(part) for part in line.split()[1:9]]
            return ticks[3] + ticks[4], sum(ticks)
    return None


def _busy(before: tuple[int, int] | None, after: tuple[int, int] | None, cores: int | None) -> float | None:
    if before is None or after is None or not cores or after[1] <= before[1]:
        return None
    return round(cores * (1 - (after[0] - before[0]) / (after[1] - before[1])), 2)


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
    resident = int(np.count_nonzero(np.frombuffer(bytes(vector), dtype=np.uint8) & 1))
    return min(length, resident * page)


def _kib(text: str | None) -> int | None:
    return int(text.split()[0]) * 1024 if text else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
