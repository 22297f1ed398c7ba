"""Ready means: health answers and two real generations came back.

Two, because the first one may trigger lazy compilation or kill a worker while health still says 200.
"""

from __future__ import annotations

import threading

from sweeper.core.observations import ReadySeen
from sweeper.core.ports import Clock
from sweeper.probes.openai import Client

ANSWERS = 2
POLL_S = 0.2


def wait_healthy(client: Client, health_path: str, clock: Clock, cancel: threading.Event) -> bool:
    """Poll until health answers 200. False when cancelled."""
    while not cancel.is_set():
        if client.healthy(health_path):
            return True
        clock.sleep(POLL_S)
    return False


LATER_S = 10.0
"""More patience than the phase has: its deadline, which knows the server's last line, is to end the wait."""


def first_answers(client: Client, clock: Clock, started_s: float) -> ReadySeen:
    """Two real generations. Raises RequestProblem when one of them fails."""
    for number in range(ANSWERS):
        client.complete(f"Count with me: {number + 1}, {number + 2},", max_tokens=8)
    return ReadySeen(after_s=round(clock.mono_s() - started_s, 3), answers=ANSWERS)
