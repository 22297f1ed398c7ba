"""The real clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """UTC with milliseconds; monotonic seconds for durations."""

    def utc(self) -> str:
        return datetime.now(UTC).isoformat(timespec="milliseconds")

    def mono_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
