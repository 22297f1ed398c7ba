"""The machine while it is measured: GPU power, clocks and state through NVML, CPU and page-cache facts."""

from sweeper.probes.machine.meter import Meter, NoMeter, SamplingMeter, open_meter
from sweeper.probes.machine.recorded import read_trace, replay, write_trace

__all__ = ["Meter", "NoMeter", "SamplingMeter", "open_meter", "read_trace", "replay", "write_trace"]
