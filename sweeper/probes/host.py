"""Facts about this machine. Every one of them may be missing: then it is None and nothing fails."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from sweeper.core.host import Disk, Docker, Gpu, Host, Link
from sweeper.probes.host_gpu import NoGpus, Reader, session

NVIDIA_VENDOR = "0x10de"


def read_host(docker: Docker | None = None, *, root: Path = Path("/"), folder: Path | None = None) -> Host:
    """Everything known now. `root` holds proc, sys, etc and dev; `folder`: where runs are kept (default: here)."""
    driver, cuda, why, gpus, links = _nvidia()
    memory = psutil.virtual_memory()
    shm = _usage(root / "dev/shm")
    return Host(
        cpu=_cpu_name(root),
        cores=psutil.cpu_count(logical=False),
        threads=psutil.cpu_count(),
        numa_nodes=len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        numa_balancing=_flag(root / "proc/sys/kernel/numa_balancing"),
        load_1m=_load(),
        memory_bytes=int(memory.total),
        available_bytes=int(memory.available),
        shm_bytes=shm[0] if shm else None,
        shm_free_bytes=shm[1] if shm else None,
        kernel=platform.release() or None,
        system=_system(root),
        wsl=wsl(_read(root / "proc/version") or ""),
        container=(root / ".dockerenv").exists() or (root / "run/.containerenv").exists(),
        python=platform.python_version(),
        nvidia_hardware=_nvidia_hardware(root),
        driver=driver,
        cuda=cuda,
        no_gpu_why=why,
        gpus=gpus,
        links=links,
        disks=_disks(folder or Path(), docker),
        docker=docker,
    )


def host_facts(docker: Docker | None = None) -> dict[str, Any]:
    """The same as plain JSON values, for a run's record."""
    return asdict(read_host(docker))


def gpu_ids() -> tuple[str, ...]:
    """Indexes of the GPUs of this machine as NVML counts, MIG ids in place of a board that is cut; () without a driver.

    Indexes and not UUIDs, because engines up to 2025 read CUDA_VISIBLE_DEVICES as numbers. CUDA_VISIBLE_DEVICES, when
    set, narrows and orders them.
    """
    try:
        with session() as ml:
            gpus = Reader(ml).gpus()
    except NoGpus:
        return ()
    return visible(gpus, os.environ)


def visible(gpus: tuple[Gpu, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """GPU names that a server may be given. An unknown name in CUDA_VISIBLE_DEVICES ends the list, as CUDA does it."""
    names: list[str] = []
    uuids: list[str] = []
    for gpu in gpus:
        slices = [part.uuid for part in gpu.mig_slices]
        names += slices or [str(gpu.index)]
        uuids += slices or [gpu.uuid or ""]
    told = environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return tuple(names)
    chosen: list[str] = []
    for word in (part.strip() for part in told.split(",")):
        match = [name for name, uuid in zip(names, uuids, strict=True) if word and uuid.startswith(word)]
        if word.isdigit() and int(word) < len(names):
            match = [names[int(word)]]
        if len(match) != 1:
            break
        chosen.append(match[0])
    return tuple(chosen)


def wsl(version_line: str) -> str | None:
    """WSL1 or WSL2 from /proc/version, None elsewhere."""
    text = version_line.lower()
    if "microsoft" not in text:
        return None
    return "WSL2" if "wsl2" in text or "microsoft-standard" in text else "WSL1"


def _nvidia() -> tuple[str | None, str | None, str | None, tuple[Gpu, ...], tuple[Link, ...]]:
    """(driver, CUDA, why there is no GPU, GPUs, links)."""
    try:
        with session() as ml:
            reader = Reader(ml)
            driver, cuda = reader.versions()
            gpus = reader.gpus()
            return driver, cuda, None if gpus else "the driver lists no GPU", gpus, reader.links(gpus)
    except NoGpus as why:
        return None, None, str(why), (), ()


def _nvidia_hardware(root: Path) -> bool:
    """An NVIDIA display or compute device on the bus (PCI class 03xx), or the device nodes of a driver."""
    if (root / "dev/nvidiactl").exists() or any((root / "dev").glob("nvidia[0-9]*")):
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if _read(device / "vendor") == NVIDIA_VENDOR and (_read(device / "class") or "").startswith("0x03"):
            return True
    return False


def _disks(folder: Path, docker: Docker | None) -> tuple[Disk, ...]:
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    wanted = [("runs", folder), ("temporary files", Path(os.environ.get("TMPDIR") or "/tmp")), ("models", hub)]
    if docker and docker.running and docker.root:
        wanted.append(("Docker images", Path(docker.root)))
    out = []
    for what, path in wanted:
        there = _nearest(path.absolute())
        usage = _usage(there) if there else None
        if there and usage:
            out.append(Disk(what=what, path=str(there), total_bytes=usage[0], free_bytes=usage[1]))
    return tuple(out)


def _nearest(path: Path) -> Path | None:
    """The path or the first folder above it that exists; one that this user may not look into is passed over."""
    for part in (path, *path.parents):
        try:
            if part.exists():
                return part
        except OSError:
            continue
    return None


def _usage(path: Path) -> tuple[int, int] | None:
    """(total, free for this user) in bytes."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return usage.total, usage.free


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _flag(path: Path) -> bool | None:
    text = _read(path)
    return None if text is None else text != "0"


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _cpu_name(root: Path) -> str | None:
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine() or None


def _system(root: Path) -> str | None:
    for line in (_read(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return platform.system() or None
