"""Who keeps time gets real-time scheduling where the system allows it; what it starts does not inherit it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from sweeper.probes.priority import keep_time


def _in_thread(work) -> object:
    box = []
    thread = threading.Thread(target=lambda: box.append(work()))
    thread.start()
    thread.join()
    return box[0]


def test_a_refusal_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert keep_time() is False


def test_a_server_started_by_a_thread_that_keeps_time_runs_as_any_other() -> None:
    def work() -> tuple[bool, int, str]:
        got = keep_time()
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], capture_output=True, text=True
        )
        return got, os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, child.stdout.strip()

    got, mine, childs = _in_thread(work)
    if not got:
        pytest.skip("real-time scheduling is not allowed here")
    assert mine == os.SCHED_RR
    assert childs == str(os.SCHED_OTHER)
