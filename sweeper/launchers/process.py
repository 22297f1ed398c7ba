"""A native server in its own session, with its own environment, its output going straight into the log file.

The child writes to the log's file descriptor itself: no thread of ours stands between a line and the disk, and the log
goes on growing if we die. Ending it: SIGTERM to the leader, after `grace_s` SIGKILL to all that carries the mark.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.core.errors import LaunchFailed
from sweeper.core.ports import Exit, Launch
from sweeper.core.values import LaunchPlan
from sweeper.launchers import common, processes, scratch
from sweeper.launchers.environment import gpu_environment, inherited, with_own_bin
from sweeper.launchers.labels import Mark, this_owner

_CHILDREN_GRACE_S = 5.0
"""How long children may go on after their leader has ended, before SIGKILL."""


class ProcessLauncher:
    """Starts servers as processes of this machine. `port`: None takes a free one for every launch."""

    name = "process"

    def __init__(self, *, environ: Mapping[str, str] | None = None, port: int | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._port = port

    def start(
        self, plan: LaunchPlan, *, log_path: Path, run_id: str, trial: str, gpus: tuple[str, ...]
    ) -> ProcessHandle:
        """Raises LaunchFailed: port-in-use, executable-missing, disk-full."""
        gpus = gpus if plan.gpus else ()
        port = common.claim_port(self._port)
        argv = common.fill_all(plan.argv, port=port, host=common.LOOPBACK)
        chosen = gpu_environment(gpus) | {
            k: common.fill(v, port=port, host=common.LOOPBACK) for k, v in plan.env.items()
        }
        mark = Mark(run_id=run_id, trial=trial, owner=this_owner(), log=str(log_path.resolve()))
        room = scratch.make()
        env = self._base(argv) | scratch.environment(room) | chosen | mark.environ()
        try:
            child = _spawn(argv, env=env, cwd=plan.cwd, log_path=log_path)
        except BaseException:
            scratch.remove(room)
            raise
        record = Launch(
            launcher=self.name,
            base_url=f"http://{common.LOOPBACK}:{port}",
            port=port,
            argv=common.redact_argv(argv),
            by_hand=_by_hand(plan.cwd, common.redact(chosen), common.redact_argv(argv)),
            env=common.redact(env),
            pid=child.pid,
            gpus=gpus,
        )
        return ProcessHandle(record, child, mark, log_path, room)

    def _base(self, argv: tuple[str, ...]) -> dict[str, str]:
        env = with_own_bin(inherited(self._environ), argv[0] if argv else "")
        # Lines must reach the log when they are written; process titles must not overwrite the mark.
        return env | {"PYTHONUNBUFFERED": "1", "SPT_NOENV": "1"}


class ProcessHandle:
    """A running native server."""

    def __init__(
        self, record: Launch, child: subprocess.Popen[bytes], mark: Mark, log_path: Path, room: Path | None
    ) -> None:
        self.record = record
        self._child = child
        self._mark = mark
        self._log_path = log_path
        self._room = room
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        self._left: list[processes.Marked] = []
        self._oom_before = common.oom_kills()

    def poll(self) -> Exit | None:
        """Asks the kernel (waitpid), so an exit is seen at the next call."""
        if self._exit is None and self._child.poll() is not None:
            self._exit = self._ended("exited by itself", ours=False)
        return self._exit

    def stop(self, grace_s: float) -> Exit:
        """Ends the leader and whatever it started, also when the leader has already ended by itself."""
        with self._lock:
            ended = self.poll() or self._end_leader(grace_s)
            term_s = 0.0 if "SIGKILL" in ended.how else min(grace_s, _CHILDREN_GRACE_S)
            _, self._left = processes.end(self._family, term_s=term_s)
            self._exit = ended
            scratch.remove(self._room)
            return ended

    def pids(self) -> tuple[int, ...]:
        return tuple(entry.pid for entry in self._family())

    def post_mortem(self) -> Mapping[str, Any]:
        ended = self.poll()
        return {
            "exit_code": ended.code if ended else None,
            "how": ended.how if ended else "still running",
            "oom_killed": ended.oom_killed if ended else False,
            "last_lines": list(common.tail(self._log_path)),
            "left_running": [f"pid {entry.pid} ({entry.name}, state {entry.state})" for entry in self._left],
        }

    def __enter__(self) -> ProcessHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(grace_s=10.0)

    def _family(self) -> list[processes.Marked]:
        return processes.of_session(self._child.pid, self._mark)

    def _end_leader(self, grace_s: float) -> Exit:
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(timeout=grace_s)
            return self._ended("SIGTERM", ours=True)
        except subprocess.TimeoutExpired:
            processes.send(self._family(), signal.SIGKILL)
        try:
            self._child.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            return Exit(code=None, stopped_by_us=True, how="SIGKILL had no effect within 10 s")
        return self._ended("SIGKILL", ours=True)

    def _ended(self, how: str, *, ours: bool) -> Exit:
        code = self._child.returncode
        shell_code = 128 - code if code < 0 else code
        oom = not ours and common.killed_for_memory(shell_code, self._oom_before)
        return Exit(code=shell_code, oom_killed=oom, stopped_by_us=ours, how=how)


def _spawn(
    argv: tuple[str, ...], *, env: Mapping[str, str], cwd: str | None, log_path: Path
) -> subprocess.Popen[bytes]:
    log = common.open_log(log_path)
    try:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd, start_new_session=True
        )
    except (OSError, ValueError, IndexError) as err:
        raise _cannot_execute(argv, cwd, err) from None
    finally:
        os.close(log)


def _cannot_execute(argv: tuple[str, ...], cwd: str | None, err: Exception) -> LaunchFailed:
    if not argv:
        return LaunchFailed("executable-missing", "the cell's command is empty")
    if cwd and not Path(cwd).is_dir():
        return LaunchFailed("executable-missing", f"the working folder {cwd} does not exist")
    why = err.strerror if isinstance(err, OSError) else str(err)
    return LaunchFailed(
        "executable-missing",
        f"cannot execute {argv[0]}: {why}",
        hint="give `python:` (or `command:`) of the cell a path that exists; look with: ls -l " + argv[0],
    )


def _by_hand(cwd: str | None, env: Mapping[str, str], argv: tuple[str, ...]) -> str:
    parts = [common.shell_word(name, value) for name, value in env.items()]
    line = " ".join([*parts, common.shell_argv(argv)])
    return f"cd {common.shell_argv([cwd])} && {line}" if cwd else line
