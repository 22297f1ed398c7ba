"""Readings of named GPUs through NVML (nvidia-ml-py). Knows no threads and no windows.

Every query may be unsupported on a board or refused inside a container; such a fact is None, not an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sweeper.core.gputrace import GpuFacts, GpuSample, PowerSource

T = TypeVar("T")


class NoNvml(Exception):
    """NVML cannot be used, or a GPU cannot be found; the message says which."""


class NvmlReader:
    """Handles to the GPUs of one cell. Raises NoNvml at creation; `close` is idempotent."""

    def __init__(self, gpus: Sequence[str]) -> None:
        self._ml = _load()
        self._open = True
        try:
            self._handles = [self._find(gpu) for gpu in gpus]
        except BaseException:
            self.close()
            raise
        self.facts = tuple(self._facts(gpu, handle) for gpu, handle in zip(gpus, self._handles, strict=True))

    def close(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(self._ml.NVMLError):
                self._ml.nvmlShutdown()

    def sample(self, gpu: int, t_s: float, *, slow: bool, processes: bool) -> GpuSample:
        """Power and energy; with `slow` also clocks, temperature, reasons and memory; with `processes` the pids."""
        ml, h = self._ml, self._handles[gpu]
        milliwatts = self._power(gpu)
        return GpuSample(
            t_s=t_s,
            gpu=gpu,
            power_w=None if milliwatts is None else milliwatts / 1000,
            energy_mj=self._try(lambda: ml.nvmlDeviceGetTotalEnergyConsumption(h)),
            sm_mhz=self._try(lambda: ml.nvmlDeviceGetClockInfo(h, ml.NVML_CLOCK_SM)) if slow else None,
            mem_mhz=self._try(lambda: ml.nvmlDeviceGetClockInfo(h, ml.NVML_CLOCK_MEM)) if slow else None,
            temp_c=self._try(lambda: ml.nvmlDeviceGetTemperature(h, ml.NVML_TEMPERATURE_GPU)) if slow else None,
            reasons=self._reasons(h) if slow else None,
            used_bytes=self._try(lambda: int(ml.nvmlDeviceGetMemoryInfo(h).used)) if slow else None,
            pids=self._pids(h) if processes else None,
        )

    def _find(self, gpu: str) -> Any:
        if gpu.startswith("MIG-"):
            raise NoNvml(f"{gpu} is a MIG slice; NVML meters only the whole GPU")
        try:
            if gpu.isdigit():
                return self._ml.nvmlDeviceGetHandleByIndex(int(gpu))
            return self._ml.nvmlDeviceGetHandleByUUID(gpu)
        except self._ml.NVMLError as problem:
            raise NoNvml(f"NVML does not know GPU {gpu}: {problem}") from problem

    def _facts(self, gpu: str, handle: Any) -> GpuFacts:
        ml = self._ml
        limit = self._try(lambda: ml.nvmlDeviceGetEnforcedPowerLimit(handle))
        source: PowerSource | None = "instant" if self._instant(handle) is not None else None
        if source is None and self._try(lambda: ml.nvmlDeviceGetPowerUsage(handle)) is not None:
            source = "average"
        return GpuFacts(
            gpu=gpu,
            name=_text(self._try(lambda: ml.nvmlDeviceGetName(handle))),
            uuid=_text(self._try(lambda: ml.nvmlDeviceGetUUID(handle))),
            power_limit_w=None if limit is None else limit / 1000,
            memory_bytes=self._try(lambda: int(ml.nvmlDeviceGetMemoryInfo(handle).total)),
            max_sm_mhz=self._try(lambda: ml.nvmlDeviceGetMaxClockInfo(handle, ml.NVML_CLOCK_SM)),
            driver=_text(self._try(ml.nvmlSystemGetDriverVersion)),
            power_source=source,
        )

    def _power(self, gpu: int) -> int | None:
        source = self.facts[gpu].power_source
        if source == "instant":
            return self._instant(self._handles[gpu])
        if source == "average":
            return self._try(lambda: int(self._ml.nvmlDeviceGetPowerUsage(self._handles[gpu])))
        return None

    def _instant(self, handle: Any) -> int | None:
        """Milliwatts now. nvmlDeviceGetPowerUsage is a one-second mean on Ampere and later (NVML API reference)."""

        def read() -> int | None:
            value = self._ml.nvmlDeviceGetFieldValues(handle, [self._ml.NVML_FI_DEV_POWER_INSTANT])[0]
            return int(value.value.uiVal) if value.nvmlReturn == self._ml.NVML_SUCCESS else None

        return self._try(read)

    def _reasons(self, handle: Any) -> int | None:
        newer = getattr(self._ml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        reasons = self._try(lambda: int(newer(handle))) if newer else None
        if reasons is None:
            reasons = self._try(lambda: int(self._ml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
        return reasons

    def _pids(self, handle: Any) -> tuple[int, ...] | None:
        running = self._try(lambda: self._ml.nvmlDeviceGetComputeRunningProcesses(handle))
        return None if running is None else tuple(sorted({int(p.pid) for p in running}))

    def _try(self, query: Callable[[], T]) -> T | None:
        try:
            return query()
        except (self._ml.NVMLError, AttributeError):
            return None


def running_pids(gpus: Sequence[str]) -> tuple[int, ...] | None:
    """Compute processes on these GPUs now; None where NVML does not work or does not tell."""
    if not gpus:
        return None
    try:
        reader = NvmlReader(gpus)
    except NoNvml:
        return None
    try:
        seen = [reader.sample(n, 0.0, slow=False, processes=True).pids for n in range(len(gpus))]
    finally:
        reader.close()
    return None if None in seen else tuple(sorted({pid for pids in seen for pid in pids or ()}))


def _load() -> Any:
    try:
        import pynvml
    except ImportError as problem:
        raise NoNvml("no NVML: nvidia-ml-py is not installed") from problem
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        raise NoNvml(f"no NVML: {problem}") from problem
    return pynvml


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def all_gpus() -> tuple[str, ...]:
    """Indices of every GPU of this machine. Raises NoNvml."""
    ml = _load()
    try:
        return tuple(str(i) for i in range(ml.nvmlDeviceGetCount()))
    finally:
        ml.nvmlShutdown()
