"""The watcher notices deaths, fatal lines and deadlines while work goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sweeper import watch as watching
from sweeper.clock import SystemClock
from sweeper.core.observations import DeadlinePassed, FatalLine, RequestFailed, ServerExited
from sweeper.core.ports import Exit, Launch
from sweeper.core.verdicts import Phase
from sweeper.probes.openai import RequestProblem
from sweeper.watch import TrialEnded, Watch

RECORD = Launch(launcher="fake", base_url="http://127.0.0.1:1", port=1, argv=(), by_hand="", env={})


@dataclass
class FakeHandle:
    record: Launch = RECORD
    exit: Exit | None = None

    def poll(self) -> Exit | None:
        return self.exit

    def stop(self, grace_s: float) -> Exit:
        return Exit(code=0, stopped_by_us=True)

    def pids(self) -> None:
        return None

    def post_mortem(self) -> Mapping[str, Any]:
        return {}

    def __enter__(self) -> FakeHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


@dataclass
class FakeMatch:
    id: str
    line_no: int
    line: str
    fatal_now: bool


@dataclass
class FakeMatcher:
    """Fatal on `KERNEL DEAD`, in whatever pieces the bytes arrive."""

    seen: bytes = b""
    phases: list[Phase] = field(default_factory=list)

    def feed(self, data: bytes) -> list[Any]:
        self.seen += data
        return [FakeMatch("kernel-dead", 2, "KERNEL DEAD", True)] if b"KERNEL DEAD" in self.seen else []

    def set_phase(self, phase: Phase) -> None:
        self.phases.append(phase)


def forever(cancel: threading.Event) -> None:
    cancel.wait(30)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_bytes(b"")
    return path


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def ended(watch: Watch, phase: Phase = Phase.READY, deadline_s: float = 20.0, work: Any = forever) -> Any:
    with pytest.raises(TrialEnded) as end:
        watch.during(phase, work, deadline_s=deadline_s)
    return end.value.observed[0]


def test_a_fatal_line_ends_the_wait_within_a_second_of_being_written(log: Path) -> None:
    watch = Watch(FakeHandle(), log, FakeMatcher(), SystemClock())
    written: list[float] = []

    def later() -> None:
        written.append(time.monotonic())
        append(log, "loading\nKERNEL DEAD\n")

    threading.Timer(0.1, later).start()
    seen = ended(watch)
    assert isinstance(seen, FatalLine)
    assert (seen.id, seen.phase, seen.line_no) == ("kernel-dead", Phase.READY, 2)
    assert time.monotonic() - written[0] < 1.0


def test_an_exit_is_noticed_and_the_rest_of_the_log_is_read_first(log: Path) -> None:
    handle, matcher = FakeHandle(), FakeMatcher()
    watch = Watch(handle, log, matcher, SystemClock())

    def die() -> None:
        append(log, "last words\n")
        handle.exit = Exit(code=-11)

    threading.Timer(0.1, die).start()
    seen = ended(watch, Phase.SANITY)
    assert isinstance(seen, ServerExited)
    assert (seen.code, seen.phase, seen.by_us) == (-11, Phase.SANITY, False)
    assert b"last words" in matcher.seen


def test_the_deadline_reports_the_last_line(log: Path) -> None:
    append(log, "NCCL INFO init\n\n")
    seen = ended(Watch(FakeHandle(), log, FakeMatcher(), SystemClock()), deadline_s=0.15)
    assert isinstance(seen, DeadlinePassed)
    assert seen.last_line == "NCCL INFO init"


def test_a_failed_request_waits_for_the_death_that_explains_it(log: Path) -> None:
    handle = FakeHandle()
    watch = Watch(handle, log, FakeMatcher(), SystemClock())

    def fail(cancel: threading.Event) -> None:
        handle.exit = Exit(code=1)
        raise RequestProblem("HTTP 500")

    assert isinstance(ended(watch, work=fail), ServerExited)


def test_a_failed_request_of_a_server_that_lives_on_is_reported_itself(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "DYING_S", 0.1)

    def fail(cancel: threading.Event) -> None:
        raise RequestProblem("HTTP 500: broken")

    seen = ended(Watch(FakeHandle(), log, FakeMatcher(), SystemClock()), work=fail)
    assert seen == RequestFailed(phase=Phase.READY, problem="HTTP 500: broken")


def test_a_fault_of_our_own_is_not_blamed_on_the_server(log: Path) -> None:
    def bug(cancel: threading.Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Watch(FakeHandle(), log, FakeMatcher(), SystemClock()).during(Phase.READY, bug, deadline_s=5)


def test_boot_phases_reach_the_live_line_once(log: Path) -> None:
    names: list[str] = []
    append(
        log, "Starting to load model m\nLoading safetensors 1/2\nLoading safetensors 2/2\nLoading weights took 3 s\n"
    )
    watch = Watch(FakeHandle(), log, FakeMatcher(), SystemClock(), on_boot=names.append)
    watch.during(Phase.READY, lambda cancel: None, deadline_s=5)
    assert names == ["loading weights", "weights loaded"]
