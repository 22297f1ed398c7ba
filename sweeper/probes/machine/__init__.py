"""The machine while it is measured: GPU power, clocks and state through NVML, CPU and page-cache facts."""

from sweeper.probes.machine.cpu import CpuState, PageCache, cpu_state, page_cache
from sweeper.probes.machine.meter import Meter, NoMeter, SamplingMeter, open_meter
from sweeper.probes.machine.recorded import read_trace, replay, write_trace

__all__ = [
    "CpuState",
    "Meter",
    "NoMeter",
    "PageCache",
    "SamplingMeter",
    "cpu_state",
    "open_meter",
    "page_cache",
    "read_trace",
    "replay",
    "write_trace",
]
