"""What this machine is: GPUs, driver, CPU, memory, Docker. Values only; `probes.host` reads them, `doctor` judges them.

Sizes in bytes. None: the machine does not say.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that holds memory of a GPU. `run`: the run id in its environment when sweeper started it."""

    pid: int
    name: str | None
    used_bytes: int | None
    run: str | None = None

    def __str__(self) -> str:
        size = f" {self.used_bytes / 2**30:.1f} GiB" if self.used_bytes else ""
        return f"pid {self.pid} ({self.name or 'name unknown'}){size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigSlice:
    """One MIG device, named by `uuid` (MIG-...)."""

    uuid: str
    name: str | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One board as NVML lists it; `index` is NVML's (bus order)."""

    index: int
    uuid: str | None = None
    name: str | None = None
    sm: str | None = None
    """Compute capability, "12.0"."""
    memory_bytes: int | None = None
    used_bytes: int | None = None
    bus_id: str | None = None
    pcie_gen: int | None = None
    """Now; falls when idle."""
    pcie_gen_max: int | None = None
    """What board and slot can do together."""
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    max_sm_mhz: int | None = None
    mig: bool | None = None
    mig_slices: tuple[MigSlice, ...] = ()
    numa_node: int | None = None
    persistence: bool | None = None
    ecc: bool | None = None
    processes: tuple[GpuProcess, ...] = ()
    processes_known: bool = True
    """False where the driver lists no processes (WSL2, some containers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Between two GPUs, by index. `p2p`: ok, or NVML's reason why not. `path`: nvlink, one switch, host bridge, ..."""

    a: int
    b: int
    p2p: str | None
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """The Docker engine that `docker` on this machine would talk to."""

    address: str
    running: bool
    installed: bool = True
    version: str | None = None
    storage: str | None = None
    root: str | None = None
    """Where images are kept, on the engine's machine."""
    gpu: str | None = None
    """How containers get GPUs: runtime (NVIDIA runtime), cdi; None: they do not."""
    problem: str | None = None
    mend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Free space where something is kept."""

    what: str
    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine at one moment."""

    cpu: str | None
    cores: int | None
    threads: int | None
    numa_nodes: int | None
    numa_balancing: bool | None
    load_1m: float | None
    memory_bytes: int | None
    available_bytes: int | None
    shm_bytes: int | None
    shm_free_bytes: int | None
    kernel: str | None
    system: str | None
    """Distribution, as /etc/os-release names it."""
    wsl: str | None
    """WSL1, WSL2; None: not under Windows."""
    container: bool
    """sweeper itself runs inside a container."""
    python: str
    nvidia_hardware: bool
    """An NVIDIA device is on the bus, whether or not a driver runs it."""
    driver: str | None
    cuda: str | None
    """Newest CUDA version the driver can run."""
    no_gpu_why: str | None
    """Why NVML lists no GPU; None: it lists some."""
    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    disks: tuple[Disk, ...]
    docker: Docker | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something a person should know before a sweep."""

    id: str
    severity: str
    """error: cells cannot run or cannot be measured. warning: some cannot. note: good to know."""
    what: str
    mend: str
    """A command, or what to do."""
