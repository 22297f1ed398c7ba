"""Which request is due when: closed loop, waves, open loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Plan:
    """Which requests, when. `bodies` are complete JSON bodies, `lengths` the output tokens each asks for."""

    bodies: list[bytes]
    lengths: list[int]
    concurrency: int
    mode: str = "closed"
    """closed: an ended stream is replaced. waves: the next `concurrency` wait for the slowest. open: by `offsets`."""
    offsets: list[float] | None = None
    """Seconds after the start at which each request is due (open loop)."""
    keep_text: bool = False
    """Answers keep the text of every event that has one."""


class Feeder:
    """Which request is due next."""

    def __init__(self, plan: Plan, started: float) -> None:
        self.plan, self.started, self.next = plan, started, 0

    def empty(self) -> bool:
        return self.next >= len(self.plan.bodies)

    def first_wave_sent(self) -> bool:
        return self.next >= min(self.plan.concurrency, len(self.plan.bodies))

    def due(self, live: int, now: float) -> int | None:
        if self.empty():
            return None
        plan = self.plan
        if plan.mode == "open":
            assert plan.offsets is not None
            if now < self.started + plan.offsets[self.next]:
                return None
        elif live >= plan.concurrency or (plan.mode == "waves" and self.next % plan.concurrency == 0 and live):
            return None
        self.next += 1
        return self.next - 1

    def wait(self, live: int, now: float, stopping: bool) -> float:
        """How long the selector may sleep: 0 while a request is due, else a quarter of a second."""
        if self.empty() or stopping:
            return 0.25
        plan = self.plan
        if plan.mode == "open":
            assert plan.offsets is not None
            return min(0.25, max(0.0, self.started + plan.offsets[self.next] - now))
        blocked = live >= plan.concurrency or (plan.mode == "waves" and self.next % plan.concurrency == 0 and live > 0)
        return 0.25 if blocked else 0.0
