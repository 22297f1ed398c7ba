"""A server that someone else started. It is asked, never stopped, and has no log of ours."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sweeper.core.errors import LaunchFailed
from sweeper.core.ports import Exit, Launch
from sweeper.core.values import LaunchPlan
from sweeper.launchers import common

_ASK_EVERY_S = 0.5


class AttachLauncher:
    """Takes `LaunchPlan.url` as the running server."""

    name = "attach"

    def start(
        self, plan: LaunchPlan, *, log_path: Path, run_id: str, trial: str, gpus: tuple[str, ...]
    ) -> AttachHandle:
        """Raises LaunchFailed(server-unreachable) when the URL is missing, malformed or nothing answers there."""
        url = (plan.url or "").rstrip("/").removesuffix("/v1").rstrip("/")
        host, port = _address(url)
        if not _listens(host, port, timeout_s=5.0):
            raise LaunchFailed(
                "server-unreachable",
                f"nothing listens at {url}",
                hint=f"start the server first; look with: curl -sS {url}{plan.health_path}",
            )
        record = Launch(
            launcher=self.name,
            base_url=url,
            port=port,
            argv=(),
            by_hand=f"# running already at {url}",
            env={},
            gpus=gpus,
        )
        return AttachHandle(record, host)


class AttachHandle:
    """`poll` says it ended when the address refuses connections; a slow answer is no end."""

    def __init__(self, record: Launch, host: str) -> None:
        self.record = record
        self._host = host
        self._asked = time.monotonic()
        self._exit: Exit | None = None

    def poll(self) -> Exit | None:
        now = time.monotonic()
        if self._exit is None and now - self._asked >= _ASK_EVERY_S:
            self._asked = now
            if not _listens(self._host, self.record.port, timeout_s=1.0):
                self._exit = Exit(code=None, how=f"{self.record.base_url} refuses connections")
        return self._exit

    def stop(self, grace_s: float) -> Exit:
        # It has not ended, so it has not died either: what is over is our part.
        return self._exit or Exit(code=None, stopped_by_us=True, how="left running (attach)")

    def pids(self) -> None:
        return None

    def post_mortem(self) -> Mapping[str, Any]:
        return {
            "exit_code": None,
            "how": self._exit.how if self._exit else "left running (attach)",
            "oom_killed": False,
            "last_lines": [],
            "listening": _listens(self._host, self.record.port, timeout_s=1.0),
        }

    def __enter__(self) -> AttachHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(0.0)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise LaunchFailed(
            "server-unreachable",
            f"`{url}` is no address of a server",
            hint=f"write it as http://{common.LOOPBACK}:8000",
        )
    return parts.hostname, port


def _listens(host: str, port: int, *, timeout_s: float) -> bool:
    """False only where the address refuses or does not exist; a time-out counts as listening (a busy server)."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return True
