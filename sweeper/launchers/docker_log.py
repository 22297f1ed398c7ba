"""A container's whole log in a file: both streams, from the first byte.

The engine's log driver keeps the order of the streams, so after a broken connection the log is asked for from its start
and as many bytes as are written already are passed over: nothing is lost and nothing twice. The driver (json-file)
stores text: a byte that is no UTF-8 arrives as U+FFFD.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from docker.errors import NotFound

from sweeper.launchers import common
from sweeper.launchers.docker_client import FAILURES

Stream = Callable[[], Iterator[bytes]]
"""Opens the log anew, from the first byte, and follows it until the container ends."""


class LogFollower:
    """A thread that copies. `running` says whether the container still runs (asked when a stream ends)."""

    def __init__(self, path: Path, stream: Stream, running: Callable[[], bool], *, retry_s: float = 0.2) -> None:
        self._stream = stream
        self._running = running
        self._retry_s = retry_s
        self._path = path
        self._file = common.open_log(path)
        self._written = 0
        self._give_up = threading.Event()
        self.problem: str | None = None
        """Why the file is not the whole log; None: it is."""
        self._thread = threading.Thread(target=self._follow, daemon=True, name=f"log of {path.parent.name}")

    def start(self) -> None:
        self._thread.start()

    @property
    def ended(self) -> bool:
        """True when the log has been read to its end."""
        return not self._thread.is_alive()

    def finish(self, seconds: float) -> bool:
        """Wait for the end of the log of a container that has ended; False when that took longer than `seconds`."""
        if self._thread.ident is None:
            os.close(self._file)
            return True
        self._thread.join(seconds)
        whole = self.ended
        self._give_up.set()
        if not whole and self.problem is None:
            self.problem = f"the log did not end within {seconds:g} s of the container's end"
        return whole

    def _follow(self) -> None:
        try:
            while not self._give_up.is_set():
                # Asked first: a container that ends while we read must be read once more, to its end.
                alive = self._running()
                if self._copy_once() and not alive:
                    return
                time.sleep(self._retry_s)
        finally:
            os.close(self._file)

    def _copy_once(self) -> bool:
        """One stream, to its end; False when it broke."""
        passed = 0
        try:
            for chunk in self._stream():
                fresh = chunk[max(0, self._written - passed) :]
                passed += len(chunk)
                self._write(fresh)
        except NotFound:
            self.problem = "the container was removed before its log was read to the end"
            self._give_up.set()
        except FAILURES:
            return False
        return True

    def _write(self, data: bytes) -> None:
        while data:
            try:
                count = os.write(self._file, data)
            except OSError as err:
                self.problem = str(common.log_refused(self._path, err))
                self._give_up.set()
                return
            self._written += count
            data = data[count:]
