"""The machine while it is measured: GPU power, clocks and state through NVML, CPU and page-cache facts."""

from sweeper.probes.machine.cpu import cpu_state, page_cache
from sweeper.probes.machine.meter import Meter, NoMeter, SamplingMeter, open_meter
from sweeper.probes.machine.nvml import running_pids
from sweeper.probes.machine.recorded import read_traces, write_traces

__all__ = [
    "Meter",
    "NoMeter",
    "SamplingMeter",
    "cpu_state",
    "open_meter",
    "page_cache",
    "read_traces",
    "running_pids",
    "write_traces",
]
