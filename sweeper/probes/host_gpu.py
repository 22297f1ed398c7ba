"""GPUs of this machine and the links between them, through NVML. What a board or driver does not say is None."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sweeper.core.host import Gpu, GpuProcess, Link, MigSlice

T = TypeVar("T")

# nvmlGpuP2PCapsIndex_t of nvml.h. The binding's own NVML_P2P_CAPS_INDEX_READ is a tuple, (0,), in 13.x.
_P2P_READ = 0
_P2P_NVLINK = 2
_P2P = {0: "ok", 1: "chipset not supported", 2: "GPU not supported", 3: "disabled by the chipset",
        4: "disabled by a key", 5: "not supported", 6: "unknown"}  # fmt: skip
_PATHS = {0: "same board", 10: "one switch", 20: "several switches", 30: "host bridge", 40: "one NUMA node",
          50: "across NUMA nodes"}  # fmt: skip


class NoGpus(Exception):
    """NVML cannot be used; the message says why."""


@contextmanager
def session() -> Iterator[Any]:
    """The NVML module, initialised. Raises NoGpus."""
    try:
        import pynvml
    except ImportError:
        raise NoGpus("the package nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as err:
        raise NoGpus(str(err)) from None
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


class Reader:
    """Questions to one NVML session."""

    def __init__(self, ml: Any) -> None:
        self._ml = ml

    def versions(self) -> tuple[str | None, str | None]:
        """(driver, newest CUDA it runs)."""
        cuda = self._ask(lambda: int(self._ml.nvmlSystemGetCudaDriverVersion_v2()))
        return _text(self._ask(self._ml.nvmlSystemGetDriverVersion)), _cuda(cuda)

    def gpus(self) -> tuple[Gpu, ...]:
        count = self._ask(lambda: int(self._ml.nvmlDeviceGetCount())) or 0
        found = (self._handle(index) for index in range(count))
        return tuple(self._gpu(index, handle) for index, handle in enumerate(found) if handle is not None)

    def links(self, gpus: tuple[Gpu, ...]) -> tuple[Link, ...]:
        return tuple(self._link(a.index, b.index) for a, b in itertools.combinations(gpus, 2))

    def find(self, gpu: str) -> Any | None:
        """Handle by index, UUID or MIG id; None: there is no such GPU."""
        if gpu.isdigit():
            return self._handle(int(gpu))
        return self._ask(lambda: self._ml.nvmlDeviceGetHandleByUUID(gpu))

    def used_and_total(self, handle: Any) -> tuple[int | None, int | None]:
        memory = self._ask(lambda: self._ml.nvmlDeviceGetMemoryInfo(handle))
        return (int(memory.used), int(memory.total)) if memory else (None, None)

    def processes(self, handle: Any) -> tuple[GpuProcess, ...] | None:
        """Compute processes; None: the driver does not list them."""
        listed = self._ask(lambda: self._ml.nvmlDeviceGetComputeRunningProcesses(handle))
        return None if listed is None else tuple(_process(entry) for entry in listed)

    def _handle(self, index: int) -> Any | None:
        return self._ask(lambda: self._ml.nvmlDeviceGetHandleByIndex(index))

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._ml.NVMLError:
            return None
        except (AttributeError, ctypes.ArgumentError):
            # A binding older than the question, or one whose types do not fit it.
            return None

    def _gpu(self, index: int, h: Any) -> Gpu:
        ml, ask = self._ml, self._ask
        used, total = self.used_and_total(h)
        sm = ask(lambda: ml.nvmlDeviceGetCudaComputeCapability(h))
        pci = ask(lambda: ml.nvmlDeviceGetPciInfo(h))
        bus = _text(pci.busId) if pci else None
        limit, default = (
            ask(lambda: ml.nvmlDeviceGetEnforcedPowerLimit(h)),
            ask(lambda: ml.nvmlDeviceGetPowerManagementDefaultLimit(h)),
        )
        mig = ask(lambda: bool(ml.nvmlDeviceGetMigMode(h)[0]))
        processes = self.processes(h)
        return Gpu(
            index=index,
            uuid=_text(ask(lambda: ml.nvmlDeviceGetUUID(h))),
            name=_text(ask(lambda: ml.nvmlDeviceGetName(h))),
            sm=f"{sm[0]}.{sm[1]}" if sm else None,
            memory_bytes=total,
            used_bytes=used,
            bus_id=bus,
            pcie_gen=ask(lambda: ml.nvmlDeviceGetCurrPcieLinkGeneration(h)),
            pcie_gen_max=ask(lambda: ml.nvmlDeviceGetMaxPcieLinkGeneration(h)),
            pcie_width=ask(lambda: ml.nvmlDeviceGetCurrPcieLinkWidth(h)),
            pcie_width_max=ask(lambda: ml.nvmlDeviceGetMaxPcieLinkWidth(h)),
            power_limit_w=None if limit is None else limit / 1000,
            power_default_w=None if default is None else default / 1000,
            max_sm_mhz=ask(lambda: ml.nvmlDeviceGetMaxClockInfo(h, ml.NVML_CLOCK_SM)),
            mig=mig,
            mig_slices=self._slices(h) if mig else (),
            numa_node=_numa_node(bus),
            persistence=ask(lambda: bool(ml.nvmlDeviceGetPersistenceMode(h))),
            ecc=ask(lambda: bool(ml.nvmlDeviceGetEccMode(h)[0])),
            processes=processes or (),
            processes_known=processes is not None,
        )

    def _slices(self, h: Any) -> tuple[MigSlice, ...]:
        ml = self._ml
        out = []
        for place in range(self._ask(lambda: int(ml.nvmlDeviceGetMaxMigDeviceCount(h))) or 0):
            part = self._ask(lambda place=place: ml.nvmlDeviceGetMigDeviceHandleByIndex(h, place))  # type: ignore[misc]
            uuid = _text(self._ask(lambda part=part: ml.nvmlDeviceGetUUID(part))) if part else None  # type: ignore[misc]
            if uuid:
                name = _text(self._ask(lambda part=part: ml.nvmlDeviceGetName(part)))  # type: ignore[misc]
                out.append(MigSlice(uuid=uuid, name=name, memory_bytes=self.used_and_total(part)[1]))
        return tuple(out)

    def _link(self, a: int, b: int) -> Link:
        ml = self._ml
        one, two = self._handle(a), self._handle(b)
        p2p = self._ask(lambda: int(ml.nvmlDeviceGetP2PStatus(one, two, _P2P_READ)))
        nvlink = self._ask(lambda: int(ml.nvmlDeviceGetP2PStatus(one, two, _P2P_NVLINK)))
        level = self._ask(lambda: int(ml.nvmlDeviceGetTopologyCommonAncestor(one, two)))
        path = "nvlink" if nvlink == 0 else _PATHS.get(level) if level is not None else None
        return Link(a=a, b=b, p2p=None if p2p is None else _P2P.get(p2p, f"status {p2p}"), path=path)


def _process(entry: Any) -> GpuProcess:
    pid = int(entry.pid)
    return GpuProcess(
        pid=pid,
        name=_proc_name(pid),
        used_bytes=None if entry.usedGpuMemory is None else int(entry.usedGpuMemory),
        run=_run_of(pid),
    )


def _proc_name(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _run_of(pid: int) -> str | None:
    """The run id that sweeper's launchers put into a server's environment."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for item in raw.split(b"\0"):
        if item.startswith(b"SWEEPER_RUN="):
            return item.partition(b"=")[2].decode("utf-8", errors="replace") or None
    return None


def _numa_node(bus: str | None) -> int | None:
    """NVML writes the PCI domain with eight digits, sysfs with four."""
    if bus is None:
        return None
    try:
        node = int(Path(f"/sys/bus/pci/devices/{bus.lower()[-12:]}/numa_node").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _cuda(number: int | None) -> str | None:
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
