"""Wait until the memory of GPUs is free after a server has been stopped, and say who holds it when it is not.

An engine profiles free memory when it starts: what the last server has not yet given back is taken from the next one,
and a figure measured beside a stranger is no figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.core.host import GpuProcess
from sweeper.probes.host_gpu import NoGpus, Reader, session

SLACK_BYTES = 512 * 2**20
"""Drivers, displays and idle contexts keep about this much on a board that is free for our purpose."""
_POLL_S = 0.25


def wait_gpus_free(
    gpus: tuple[str, ...],
    deadline_s: float,
    *,
    idle: Mapping[str, int] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    mono_s: Callable[[], float] = time.monotonic,
) -> tuple[str, ...]:
    """() when all are free, else one sentence per GPU after `deadline_s` seconds.

    `gpus`: indexes, UUIDs or MIG ids. `idle`: bytes that were in use before the first launch, per GPU (see `in_use`):
    what strangers held then does not count. () at once where NVML does not work: nothing can be said then.
    """
    try:
        with session() as ml:
            reader = Reader(ml)
            begun_s = mono_s()
            while True:
                held = _held(reader, gpus, idle or {})
                if not held or mono_s() - begun_s >= deadline_s:
                    return held
                sleep(_POLL_S)
    except NoGpus:
        return ()


def in_use(gpus: tuple[str, ...]) -> dict[str, int]:
    """Bytes in use per GPU now; empty where NVML does not work."""
    try:
        with session() as ml:
            reader = Reader(ml)
            found = ((gpu, reader.find(gpu)) for gpu in gpus)
            used = ((gpu, reader.used_and_total(handle)[0]) for gpu, handle in found if handle is not None)
            return {gpu: size for gpu, size in used if size is not None}
    except NoGpus:
        return {}


def _held(reader: Reader, gpus: tuple[str, ...], idle: Mapping[str, int]) -> tuple[str, ...]:
    said = []
    for gpu in gpus:
        handle = reader.find(gpu)
        if handle is None:
            continue
        used, total = reader.used_and_total(handle)
        processes = reader.processes(handle)
        if not _free(gpu, used, processes, idle):
            said.append(_sentence(gpu, used, total, processes))
    return tuple(said)


def _free(gpu: str, used: int | None, processes: tuple[GpuProcess, ...] | None, idle: Mapping[str, int]) -> bool:
    if gpu in idle:
        return used is None or used <= idle[gpu] + SLACK_BYTES
    if processes:
        # Unknown sizes count: under WDDM a driver lists processes and not what they hold.
        return all(process.used_bytes is not None and process.used_bytes < SLACK_BYTES for process in processes)
    # Nobody is listed: the board is idle, or the driver shows no processes (WSL2). Displays take 1 to 2 GiB.
    return used is None or used <= SLACK_BYTES + (0 if processes is not None else 2 * 2**30)


def _sentence(gpu: str, used: int | None, total: int | None, processes: tuple[GpuProcess, ...] | None) -> str:
    sizes = f"{(used or 0) / 2**30:.1f} of {(total or 0) / 2**30:.1f} GiB"
    who: Any = "a process that cannot be seen from here"
    if processes:
        who = ", ".join(str(process) + (f" of run {process.run}" if process.run else "") for process in processes)
    return f"GPU {gpu}: {sizes} held by {who}"
