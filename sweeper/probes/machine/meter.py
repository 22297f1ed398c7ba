"""A meter around one measuring window: a thread samples the cell's GPUs, `stop` judges what it recorded.

with open_meter(("0", "1")) as meter:
    meter.idle_w()
    meter.start()
    ...
    energy = meter.stop()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Protocol

from sweeper.core.energy import MachineWindow, judge_window, unmetered
from sweeper.core.gputrace import GpuFacts, GpuSample, GpuTrace
from sweeper.core.points import Energy
from sweeper.probes.machine.nvml import NoNvml, NvmlReader

SLOW_EVERY_S = 0.1
PROCESSES_EVERY_S = 1.0


class Reader(Protocol):
    """Where samples come from: NVML, or a test."""

    @property
    def facts(self) -> tuple[GpuFacts, ...]: ...

    def sample(self, gpu: int, t_s: float, *, slow: bool, processes: bool) -> GpuSample: ...

    def close(self) -> None: ...


class Meter(Protocol):
    """What a load run may ask of the machine. Every method works without a GPU."""

    traces: list[GpuTrace]
    """Raw record of every window so far, for the store; empty where nothing can be metered."""
    window: MachineWindow | None
    """Judgement of the last window."""

    def start(self) -> None: ...

    def stop(self) -> Energy: ...

    def idle_w(self, seconds: float = 1.0) -> float | None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Meter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


OwnPids = Callable[[], Sequence[int] | None]


def open_meter(
    gpus: Sequence[str], *, hz: float = 20.0, own_pids: OwnPids | None = None, strangers: Sequence[int] = ()
) -> Meter:
    """A meter for the GPUs named (index or UUID). Never raises: without NVML its energies are None and say why.

    `hz`: 10 to 100 power readings per second; phases need 100. `own_pids`: the processes of the cell, asked for while
    nothing is measured, and once more when a window saw others. `strangers`: who was on the GPUs before the launch.
    With neither, the processes present when a window opens count as the cell's.
    """
    if not gpus:
        return NoMeter("no GPU belongs to this cell")
    try:
        return SamplingMeter(NvmlReader(gpus), hz=hz, own_pids=own_pids, strangers=strangers)
    except NoNvml as problem:
        return NoMeter(str(problem))


class NoMeter:
    """Stands in where nothing can be metered."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.traces: list[GpuTrace] = []
        self.window: MachineWindow | None = None

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> Energy:
        return unmetered(self.why)

    def idle_w(self, seconds: float = 1.0) -> float | None:
        return None

    def close(self) -> None:
        """Holds nothing."""

    def __enter__(self) -> NoMeter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SamplingMeter:
    """Samples a reader from a thread of its own. NVML calls release the interpreter lock."""

    def __init__(
        self, reader: Reader, *, hz: float = 20.0, own_pids: OwnPids | None = None, strangers: Sequence[int] = ()
    ) -> None:
        self.traces: list[GpuTrace] = []
        self.window: MachineWindow | None = None
        self._reader, self._period_s = reader, 1.0 / min(max(hz, 1.0), 1000.0)
        self._ask_own, self._own, self._strangers = own_pids, frozenset[int](), tuple(strangers)
        self._closed = False
        self._samples: list[GpuSample] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._opened_s = 0.0
        self._idle_w: float | None = None

    def start(self) -> None:
        """Open the window. A window still open is thrown away."""
        self._halt()
        if self._closed:
            return
        self._samples = []
        self._stop.clear()
        self._opened_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> Energy:
        """Close the window and judge it; None-valued energy when it was never opened."""
        if self._thread is None:
            return unmetered("the meter was not started", idle_w=self._idle_w)
        closed_s = time.monotonic()
        self._halt()
        trace = GpuTrace(
            gpus=self._reader.facts,
            samples=tuple(self._samples),
            window_s=(self._opened_s, closed_s),
            own_pids=self._own_pids({pid for sample in self._samples for pid in sample.pids or ()}),
            strangers=self._strangers,
            idle_w=self._idle_w,
        )
        self.traces.append(trace)
        self.window = judge_window(trace)
        return self.window.energy

    def _own_pids(self, seen: Collection[int]) -> tuple[int, ...] | None:
        """The cell's processes. Asked again only where the window saw others: a container takes a while to answer."""
        if self._ask_own is None:
            return None
        if not self._own or set(seen) - self._own:
            self._own |= frozenset(self._ask_own() or ())
        return tuple(sorted(self._own)) or None

    def idle_w(self, seconds: float = 1.0) -> float | None:
        """Mean power of all GPUs over `seconds`, kept for the windows that follow. Call it while nothing is asked."""
        self._own_pids(())
        self.start()
        time.sleep(seconds)
        self._halt()
        means = [_mean_power(self._samples, gpu) for gpu in range(len(self._reader.facts))]
        self._idle_w = None if any(m is None for m in means) else sum(m for m in means if m is not None)
        return self._idle_w

    def close(self) -> None:
        """A window opened afterwards, by a load run that was given up, is not sampled."""
        self._closed = True
        self._halt()
        self._reader.close()

    def __enter__(self) -> SamplingMeter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _halt(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        slow_due = processes_due = due = time.monotonic()
        while True:
            now = time.monotonic()
            slow, processes = now >= slow_due, now >= processes_due
            slow_due = now + SLOW_EVERY_S if slow else slow_due
            processes_due = now + PROCESSES_EVERY_S if processes else processes_due
            for gpu in range(len(self._reader.facts)):
                t_s = time.monotonic()
                self._samples.append(self._reader.sample(gpu, t_s, slow=slow, processes=processes))
            due = max(due + self._period_s, time.monotonic())
            if self._stop.wait(due - time.monotonic()):
                return


def _mean_power(samples: Sequence[GpuSample], gpu: int) -> float | None:
    known = [s.power_w for s in samples if s.gpu == gpu and s.power_w is not None]
    return sum(known) / len(known) if known else None
