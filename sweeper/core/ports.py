"""The seams. The runner knows these protocols; adapters implement them and never import one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell, LaunchPlan, Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a server ended. `code` follows the shell: 128 + signal; None: still running or unknown."""

    code: int | None
    oom_killed: bool = False
    stopped_by_us: bool = False
    how: str = ""
    """exited by itself, SIGTERM, SIGKILL, docker stop, left running (attach)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Facts of one launch, never rewritten."""

    launcher: str
    base_url: str
    """http://127.0.0.1:PORT"""
    port: int
    argv: tuple[str, ...]
    """As executed."""
    by_hand: str
    """One shell line that a person can paste; secrets replaced by $NAME."""
    env: Mapping[str, str]
    """Redacted."""
    image: str | None = None
    image_digest: str | None = None
    container_id: str | None = None
    pid: int | None = None
    gpus: tuple[str, ...] = ()


class Engine(Protocol):
    """Pure: cell to plan, log lines to facts."""

    name: str

    def plan(self, cell: Cell) -> LaunchPlan | Unsupported: ...

    def effective(self, lines: Iterable[str]) -> EffectiveConfig: ...


class ServerHandle(Protocol):
    """A running server. Leaving the `with` block leaves nothing running that we started."""

    record: Launch

    def poll(self) -> Exit | None:
        """None while it runs."""

    def stop(self, grace_s: float) -> Exit:
        """SIGTERM or `docker stop`, then SIGKILL after `grace_s`; idempotent."""

    def pids(self) -> tuple[int, ...] | None:
        """Every process of the server, as the host numbers them; None where that cannot be told (attach)."""

    def post_mortem(self) -> Mapping[str, Any]:
        """Exit code, OOM flag, who holds the GPUs; every part under a short time-out, never raises."""

    def __enter__(self) -> ServerHandle: ...

    def __exit__(self, *exc: object) -> None: ...


class Launcher(Protocol):
    """Turns a plan into a server. Writes the whole log to `log_path` from the first byte."""

    name: str

    def start(
        self, plan: LaunchPlan, *, log_path: Path, run_id: str, trial: str, gpus: tuple[str, ...]
    ) -> ServerHandle:
        """Raises LaunchFailed with a cause id when the server could not even be created."""


class Clock(Protocol):
    """Injected so that tests move time by hand."""

    def utc(self) -> str: ...

    def mono_s(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...
