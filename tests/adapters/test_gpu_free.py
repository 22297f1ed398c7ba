from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.probes import gpu_free
from sweeper.probes.host_gpu import NoGpus

GIB = 2**30


class Error(Exception):
    pass


class Boards:
    """NVML for boards whose use follows a script: one (used, processes) per look, the last one stays."""

    NVMLError = Error

    def __init__(self, *looks: tuple[int, list[tuple[int, int | None]] | None]) -> None:
        self.looks = list(looks)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 0:
            raise Error("Not Found")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=self.looks[0][0], total=96 * GIB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> Any:
        listed = self.looks[0][1]
        if len(self.looks) > 1:
            self.looks.pop(0)
        if listed is None:
            raise Error("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in listed]


class Clock:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def mono_s(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait(boards: Boards, clock: Clock, monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[str, ...]:
    @contextmanager
    def session() -> Iterator[Boards]:
        yield boards

    monkeypatch.setattr(gpu_free, "session", session)
    return gpu_free.wait_gpus_free(("0",), 2.0, sleep=clock.sleep, mono_s=clock.mono_s, **more)


def test_memory_that_is_given_back_late_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = Boards((90 * GIB, [(7, 90 * GIB)]), (50 * GIB, []), (GIB // 4, []))
    assert wait(boards, clock, monkeypatch) == ()
    assert 0 < clock.now < 2


def test_a_holder_is_named_after_the_deadline(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    said = wait(Boards((23 * GIB, [(999999999, 22 * GIB)])), clock, monkeypatch)
    assert said == ("GPU 0: 23.0 of 96.0 GiB held by pid 999999999 (name unknown) 22.0 GiB",)
    assert clock.now >= 2


def test_a_holder_that_cannot_be_seen_is_said(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be seen" in wait(Boards((23 * GIB, None)), clock, monkeypatch)[0]


def test_a_display_on_a_board_without_a_process_list_is_free(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(Boards((2 * GIB, None)), clock, monkeypatch) == ()


def test_a_process_of_unknown_size_holds(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(Boards((3 * GIB, [(7, None)])), clock, monkeypatch)


def test_what_was_in_use_before_does_not_count(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = Boards((10 * GIB, [(7, 10 * GIB)]))
    assert wait(boards, clock, monkeypatch, idle={"0": 10 * GIB}) == ()
    assert wait(boards, clock, monkeypatch, idle={"0": 8 * GIB})


def test_without_nvml_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def session() -> Iterator[Any]:
        raise NoGpus("NVML Shared Library Not Found")
        yield

    monkeypatch.setattr(gpu_free, "session", session)
    assert gpu_free.wait_gpus_free(("0",), 1.0) == ()
    assert gpu_free.in_use(("0",)) == {}


def test_in_use_reads_the_boards_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def session() -> Iterator[Any]:
        yield Boards((GIB, []))

    monkeypatch.setattr(gpu_free, "session", session)
    assert gpu_free.in_use(("0", "1")) == {"0": GIB}
