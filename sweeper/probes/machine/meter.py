"""A meter around one measuring window: a thread samples the cell's GPUs, `stop` judges what it recorded.

with open_meter(("0", "1")) as meter:
    meter.idle_w()
    meter.start()
    ...
    energy = meter.stop(tokens)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
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

    trace: GpuTrace | None
    """Raw record of the last window, for the store and for `phase_energy`."""
    window: MachineWindow | None
    """Judgement of the last window."""

    def start(self) -> None: ...

    def stop(self, tokens: int | None = None, *, window_s: tuple[float, float] | None = None) -> Energy: ...

    def idle_w(self, seconds: float = 1.0) -> float | None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Meter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_meter(gpus: Sequence[str], *, hz: float = 20.0, own_pids: Callable[[], Sequence[int]] | None = None) -> Meter:
    """A meter for the GPUs named (index or UUID). Never raises: without NVML its energies are None and say why.

    `hz`: 10 to 100 power readings per second; phases need 100. `own_pids` is asked at the end of a window for the
    processes of the cell; without it the processes present when the window opens count as the cell's.
    """
    if not gpus:
        return NoMeter("no GPU belongs to this cell")
    try:
        return SamplingMeter(NvmlReader(gpus), hz=hz, own_pids=own_pids)
    except NoNvml as problem:
        return NoMeter(str(problem))


class NoMeter:
    """Stands in where nothing can be metered."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.trace: GpuTrace | None = None
        self.window: MachineWindow | None = None

    def start(self) -> None:
        self._opened_s = time.monotonic()

    def stop(self, tokens: int | None = None, *, window_s: tuple[float, float] | None = None) -> Energy:
        opened_s, closed_s = window_s or (getattr(self, "_opened_s", 0.0), time.monotonic())
        self.trace = GpuTrace(window_s=(opened_s, closed_s), why=self.why)
        self.window = judge_window(self.trace, tokens=tokens)
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
        self, reader: Reader, *, hz: float = 20.0, own_pids: Callable[[], Sequence[int]] | None = None
    ) -> None:
        self.trace: GpuTrace | None = None
        self.window: MachineWindow | None = None
        self._reader, self._period_s, self._own_pids = reader, 1.0 / min(max(hz, 1.0), 1000.0), own_pids
        self._samples: list[GpuSample] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._opened_s = 0.0
        self._idle_w: float | None = None

    def start(self) -> None:
        """Open the window. A window still open is thrown away."""
        self._halt()
        self._samples = []
        self._stop.clear()
        self._opened_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self, tokens: int | None = None, *, window_s: tuple[float, float] | None = None) -> Energy:
        """Close the window and judge it; None-valued energy when it was never opened.

        `window_s`: (from, to) of time.monotonic(), where the window proper was found only afterwards.
        """
        if self._thread is None:
            return unmetered("the meter was not started", idle_w=self._idle_w)
        closed_s = time.monotonic()
        self._halt()
        self.trace = GpuTrace(
            gpus=self._reader.facts,
            samples=tuple(self._samples),
            window_s=window_s or (self._opened_s, closed_s),
            own_pids=tuple(self._own_pids()) if self._own_pids else None,
        )
        self.window = judge_window(self.trace, tokens=tokens, idle_w=self._idle_w)
        return self.window.energy

    def idle_w(self, seconds: float = 1.0) -> float | None:
        """Mean power of all GPUs over `seconds`, kept for the windows that follow. Call it while nothing is asked."""
        self.start()
        time.sleep(seconds)
        self._halt()
        means = [_mean_power(self._samples, gpu) for gpu in range(len(self._reader.facts))]
        self._idle_w = None if any(m is None for m in means) else sum(m for m in means if m is not None)
        return self._idle_w

    def close(self) -> None:
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
