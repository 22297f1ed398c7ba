"""Client processes seen from the parent: start, hand out plans, hear when all streams decode, cut, collect.

Separate processes keep stamps free of the parent's interpreter lock (log matching, power sampling). All stamps are
CLOCK_MONOTONIC, which processes of one machine share.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from sweeper.core.errors import EnvironmentNotReady, SweeperError
from sweeper.probes.load.client import Target
from sweeper.probes.priority import keep_time

BOOT_S = 60.0


@dataclass(slots=True, kw_only=True)
class RunResult:
    """All processes together. `records` as `Answer.record` makes them; `cpu_share` of the busiest process."""

    records: list[dict[str, Any]] = field(default_factory=list)
    started_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    cpu_share: float = 0.0
    wait_share: float = 0.0
    """Of the time: ready to run, but no core was free; of the process that waited most."""
    lag_p99_s: float = 0.0
    processes: int = 1


class _Worker:
    def __init__(self) -> None:
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweeper.probes.load.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        self.stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]

    def tell(self, line: bytes) -> None:
        try:
            self.stdin.write(line + b"\n")
            self.stdin.flush()
        except OSError:
            raise self.died() from None

    def died(self) -> SweeperError:
        self.process.kill()
        _, said = self.process.communicate()
        last = said.decode("utf-8", "replace").strip().splitlines()
        return SweeperError(f"a load client process died: {last[-1] if last else 'no message'}")


class Pool:
    """`with Pool(target) as pool: pool.run(plans)`. Leaving ends the processes."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.workers: list[_Worker] = []
        self.heard: queue.SimpleQueue[tuple[int, dict[str, Any], bytes]] = queue.SimpleQueue()

    def __enter__(self) -> Pool:
        self.grow(1)
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers:
            worker.stdin.close()
            try:
                worker.process.wait(2.0)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()

    def grow(self, count: int) -> None:
        """At least `count` processes."""
        while len(self.workers) < count:
            worker = _Worker()
            number = len(self.workers)
            self.workers.append(worker)
            threading.Thread(target=self._listen, args=(number, worker), daemon=True).start()
            worker.tell(json.dumps({"target": asdict(self.target)}).encode())

    def retarget(self, target: Target) -> None:
        self.target = target
        for worker in self.workers:
            worker.tell(json.dumps({"target": asdict(target)}).encode())

    def _listen(self, number: int, worker: _Worker) -> None:
        keep_time()
        while line := worker.stdout.readline():
            message = json.loads(line)
            payload = worker.stdout.read(message.get("bytes", 0)) if message["event"] == "done" else b""
            self.heard.put((number, message, payload))
        self.heard.put((number, {"event": "gone"}, b""))

    def _hear(self, timeout: float | None) -> tuple[int, dict[str, Any], bytes] | None:
        """The next message; None after `timeout` seconds."""
        try:
            number, message, payload = self.heard.get(timeout=timeout)
        except queue.Empty:
            return None
        if message["event"] == "gone":
            raise self.workers[number].died()
        if message["event"] == "failed":
            raise EnvironmentNotReady(
                f"cannot reach {self.target.host}:{self.target.port}: {message['why']}",
                hint="Is the server up and is this its port? curl -s URL/v1/models",
            )
        return number, message, payload

    def run(
        self,
        plans: Sequence[dict[str, Any]],
        *,
        window_s: float | None = None,
        on_go: Callable[[], None] | None = None,
        on_open: Callable[[float], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> RunResult:
        """One plan per process, started together. `on_open` when every process has all its streams decoding.

        `window_s` after that, live streams are cut; `on_close` is called before the cut, or when a process ends first.
        """
        self.grow(len(plans))
        for worker, plan in zip(self.workers, plans, strict=False):
            worker.tell(json.dumps({"plan": plan}).encode())
        self._gather("ready", len(plans))
        if on_go:
            on_go()
        for worker, _ in zip(self.workers, plans, strict=False):
            worker.tell(b"go")
        result = RunResult(processes=len(plans))
        opens: list[float] = []
        finished = 0
        close_at: float | None = None
        closed = cut = False
        while finished < len(plans):
            left = None if close_at is None or cut else max(0.0, close_at - time.monotonic())
            message = self._hear(left)
            if message and message[1]["event"] == "open":
                opens.append(message[1]["t"])
                if len(opens) == len(plans):
                    if on_open:
                        on_open(max(opens))
                    close_at = max(opens) + window_s if window_s is not None else None
            ended = message is not None and message[1]["event"] == "done"
            over = message is None or message[1]["event"] in ("close", "done")
            if over and not closed and len(opens) == len(plans):
                closed = True
                if on_close:
                    on_close()
            if message is None and not cut:
                cut = True
                for worker, _ in zip(self.workers, plans, strict=False):
                    worker.tell(b"stop")
            if ended and message:
                finished += 1
                _merge(result, pickle.loads(message[2]))
        result.records.sort(key=lambda record: float(record["sent_s"]))
        return result

    def _gather(self, event: str, count: int) -> None:
        seen = 0
        while seen < count:
            message = self._hear(BOOT_S)
            if message is None:
                raise SweeperError(f"a load client process was not ready within {BOOT_S:g} s")
            seen += message[1]["event"] == event


def _merge(result: RunResult, part: dict[str, Any]) -> None:
    result.records += part["requests"]
    result.started_s = min(result.started_s or part["started_s"], part["started_s"])
    result.wall_s = max(result.wall_s, part["wall_s"])
    result.cpu_s += part["cpu_s"]
    result.cpu_share = max(result.cpu_share, part["cpu_s"] / part["wall_s"] if part["wall_s"] else 0.0)
    result.wait_share = max(result.wait_share, part["waited_s"] / part["wall_s"] if part["wall_s"] else 0.0)
    result.lag_p99_s = max(result.lag_p99_s, part["lag_p99_s"])
