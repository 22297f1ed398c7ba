"""The sampling meter with a reader of ours, and the NVML reader with a stand-in for the driver."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.core.gputrace import GpuFacts, GpuSample
from sweeper.probes.machine import NoMeter, SamplingMeter, open_meter, running_pids


class Board:
    """100 W, a counter that follows; two GPUs."""

    def __init__(self) -> None:
        self.facts = tuple(GpuFacts(gpu=str(n), power_limit_w=200.0, power_source="instant") for n in range(2))
        self.closed = False
        self.slow = self.all = 0
        self.pids: tuple[int, ...] = (7,)

    def sample(self, gpu: int, t_s: float, *, slow: bool, processes: bool) -> GpuSample:
        self.all, self.slow = self.all + 1, self.slow + slow
        return GpuSample(
            t_s=t_s,
            gpu=gpu,
            power_w=100.0,
            energy_mj=round(t_s * 100_000),
            reasons=0 if slow else None,
            pids=self.pids if processes else None,
        )

    def close(self) -> None:
        self.closed = True


def test_a_window_is_sampled_and_judged() -> None:
    board = Board()
    with SamplingMeter(board, hz=200) as meter:
        meter.start()
        time.sleep(0.15)
        energy = meter.stop()
    assert board.closed
    assert energy.mean_w == pytest.approx(200, rel=0.02)
    assert energy.power_share == pytest.approx(0.5, rel=0.02)
    assert energy.state == "fine"
    (trace,) = meter.traces
    assert len(trace.samples) > 10
    assert board.slow < board.all / 2


def test_every_window_is_kept_for_the_store() -> None:
    with SamplingMeter(Board(), hz=200, strangers=(5,)) as meter:
        meter.idle_w(0.02)
        for _ in range(3):
            meter.start()
            time.sleep(0.02)
            meter.stop()
    assert [trace.strangers for trace in meter.traces] == [(5,)] * 3
    assert [trace.idle_w for trace in meter.traces] == [pytest.approx(200)] * 3
    assert meter.traces[0].window_s[1] <= meter.traces[1].window_s[0]


def test_a_window_opened_after_closing_is_not_sampled() -> None:
    meter = SamplingMeter(Board(), hz=200)
    meter.close()
    meter.start()
    assert meter.stop().joules is None
    assert meter.traces == []


def test_idle_power_is_kept_for_the_window() -> None:
    with SamplingMeter(Board(), hz=200) as meter:
        assert meter.idle_w(0.05) == pytest.approx(200)
        meter.start()
        assert meter.stop().idle_w == pytest.approx(200)


def test_own_processes_are_asked_before_the_window_and_again_for_others_only() -> None:
    asked: list[int] = []

    def own() -> tuple[int, ...]:
        asked.append(len(asked))
        return (7,) if len(asked) == 1 else (7, 8)

    board = Board()
    with SamplingMeter(board, hz=200, own_pids=own) as meter:
        meter.idle_w(0.02)
        assert len(asked) == 1
        for pids, more, foreign in (((7,), 0, ()), ((7, 8), 1, ()), ((7, 8), 1, ()), ((7, 9), 2, (9,))):
            board.pids = pids
            meter.start()
            time.sleep(0.02)
            meter.stop()
            assert meter.window is not None
            assert meter.window.foreign_pids == foreign
            assert len(asked) == 1 + more


def test_a_server_that_cannot_name_its_processes_leaves_them_unknown() -> None:
    with SamplingMeter(Board(), hz=200, own_pids=lambda: None) as meter:
        meter.start()
        time.sleep(0.02)
        meter.stop()
    assert meter.traces[0].own_pids is None
    assert meter.window is not None
    assert meter.window.foreign_pids == ()


def test_stopping_twice_or_unstarted_is_no_error() -> None:
    with SamplingMeter(Board(), hz=200) as meter:
        assert meter.stop().why == "the meter was not started"
        meter.start()
        meter.start()
        assert meter.stop().state is not None
        assert meter.stop().joules is None


def test_no_gpu_is_a_meter_that_says_so() -> None:
    meter = open_meter(())
    assert isinstance(meter, NoMeter)
    with meter:
        assert meter.idle_w() is None
        meter.start()
        energy = meter.stop()
    assert energy.joules is None
    assert energy.why == "no GPU belongs to this cell"
    assert meter.traces == []


class FakeNvml(SimpleNamespace):
    """Answers like pynvml; `lacks` names queries the driver refuses."""

    class NVMLError(Exception):
        pass

    NVML_SUCCESS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_FI_DEV_POWER_INSTANT = 0, 1, 2, 0, 186

    def __init__(self, *, lacks: tuple[str, ...] = (), driver: bool = True) -> None:
        super().__init__(shutdowns=0)
        self.lacks, self.driver = lacks, driver

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        self.shutdowns += 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return f"h{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetFieldValues(self, handle: str, ids: list[int]) -> list[Any]:
        status = 3 if "instant" in self.lacks else 0
        return [SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=250_000))]

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlDeviceGetEnforcedPowerLimit": 600_000,
            "nvmlDeviceGetPowerUsage": 240_000,
            "nvmlDeviceGetTotalEnergyConsumption": 5_000_000,
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetUUID": b"GPU-1",
            "nvmlSystemGetDriverVersion": "575.51",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=2**37, used=2**30),
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetClockInfo": 1755,
            "nvmlDeviceGetTemperature": 44,
            "nvmlDeviceGetCurrentClocksEventReasons": 4,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 32,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=9), SimpleNamespace(pid=3)],
        }
        if name not in answers:
            raise AttributeError(name)

        def query(*args: Any) -> Any:
            if name in self.lacks:
                raise self.NVMLError("Not Supported")
            return answers[name]

        return query


def use(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_every_fact_of_a_board_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.probes.machine.nvml import NvmlReader

    nvml = use(monkeypatch, FakeNvml())
    reader = NvmlReader(("0", "GPU-1"))
    assert reader.facts[0] == GpuFacts(
        gpu="0",
        name="NVIDIA H200",
        uuid="GPU-1",
        power_limit_w=600.0,
        memory_bytes=2**37,
        max_sm_mhz=1980,
        driver="575.51",
        power_source="instant",
    )
    full = reader.sample(1, 5.0, slow=True, processes=True)
    assert (full.power_w, full.energy_mj, full.reasons, full.pids) == (250.0, 5_000_000, 4, (3, 9))
    quick = reader.sample(1, 5.0, slow=False, processes=False)
    assert (quick.power_w, quick.sm_mhz, quick.reasons, quick.pids) == (250.0, None, None, None)
    reader.close()
    reader.close()
    assert nvml.shutdowns == 1


def test_processes_on_gpus_are_listed_without_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeNvml())
    assert running_pids(("0", "GPU-1")) == (3, 9)
    assert running_pids(()) is None
    assert running_pids(("MIG-1",)) is None


def test_refused_queries_are_unknown_and_not_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.probes.machine.nvml import NvmlReader

    lacks = ("instant", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksEventReasons")
    use(monkeypatch, FakeNvml(lacks=(*lacks, "nvmlDeviceGetComputeRunningProcesses")))
    reader = NvmlReader(("0",))
    sample = reader.sample(0, 1.0, slow=True, processes=True)
    assert reader.facts[0].power_source == "average"
    assert (sample.power_w, sample.energy_mj, sample.reasons, sample.pids) == (240.0, None, 32, None)


def test_a_board_without_power_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.probes.machine.nvml import NvmlReader

    use(monkeypatch, FakeNvml(lacks=("instant", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit")))
    reader = NvmlReader(("0",))
    assert reader.facts[0].power_source is None
    assert reader.facts[0].power_limit_w is None
    assert reader.sample(0, 1.0, slow=False, processes=False).power_w is None


@pytest.mark.parametrize(
    ("gpus", "driver", "why"),
    [
        (("0",), False, "no NVML: Driver Not Loaded"),
        (("5",), True, "NVML does not know GPU 5"),
        (("MIG-1",), True, "MIG slice"),
    ],
)
def test_what_cannot_be_metered_says_why(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[str, ...], driver: bool, why: str
) -> None:
    nvml = use(monkeypatch, FakeNvml(driver=driver))
    assert why in (open_meter(gpus).stop().why or "")
    assert nvml.shutdowns == (1 if driver else 0)


def test_without_the_package_the_meter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_meter(("0",)).stop().why == "no NVML: nvidia-ml-py is not installed"


def test_a_board_is_metered_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeNvml())
    with open_meter(("0",), hz=100) as meter:
        meter.start()
        time.sleep(0.05)
        energy = meter.stop()
    assert energy.state == "invalid"
    assert "did not advance" in (energy.why or "")
