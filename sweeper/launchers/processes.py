"""Find and end processes by their mark (labels.py), through /proc.

A mark is the environment a process was started with. Two things hide it: a program that overwrites that memory to show
a title (prevented with SPT_NOENV for the setproctitle package, which the engines use), and a child started with an
empty environment. Both are still found while they share the session of a marked process and write to its log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sweeper.launchers.labels import ENV_LOG, ENV_OWNER, ENV_RUN, ENV_TRIAL, Mark

_KEY = f"{ENV_RUN}=".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A living process that carries a mark. `ticks` (start time) tells it from a later process of the same pid."""

    pid: int
    ticks: int
    session: int
    state: str
    name: str
    mark: Mark


def marked() -> list[Marked]:
    """Every marked process this user may see, zombies left out, in order of pid."""
    found: dict[int, Marked] = {}
    unmarked: list[int] = []
    for pid in _pids():
        mark = _mark_of(pid)
        entry = _describe(pid, mark) if mark else None
        if entry:
            found[pid] = entry
        elif not mark:
            unmarked.append(pid)
    sessions = {(entry.session, entry.mark.log): entry.mark for entry in found.values() if entry.mark.log}
    for pid in unmarked if sessions else ():
        hidden = _by_session(pid, sessions)
        if hidden:
            found[pid] = hidden
    return [found[pid] for pid in sorted(found)]


def of_session(leader: int, mark: Mark) -> list[Marked]:
    """Processes of one launch: those with its mark, and those of its session, however they changed their environment.

    `leader` must be the pid of a session that we created.
    """
    out = {entry.pid: entry for entry in marked() if entry.mark == mark}
    for pid in _pids():
        if pid not in out and _session(pid) == leader:
            entry = _describe(pid, mark)
            if entry:
                out[pid] = entry
    return [out[pid] for pid in sorted(out)]


def send(entries: Iterable[Marked], number: signal.Signals) -> None:
    """Signal each process unless its pid has been taken by another one since."""
    for entry in entries:
        if _ticks(entry.pid) == entry.ticks:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(entry.pid, number)


def end(find: Callable[[], list[Marked]], *, term_s: float, kill_s: float = 5.0) -> tuple[int, list[Marked]]:
    """SIGTERM, wait up to `term_s`, SIGKILL, wait up to `kill_s`. Returns (how many were found, those still there).

    `find` is asked again each time: a process that forks while it is being ended leaves no child behind.
    """
    first = find()
    if first and term_s > 0:
        send(first, signal.SIGTERM)
        _wait_gone(find, term_s)
    left = find()
    deadline = time.monotonic() + kill_s
    while left and time.monotonic() < deadline:
        send(left, signal.SIGKILL)
        left = _wait_gone(find, 0.2)
    return len(first), left


def _wait_gone(find: Callable[[], list[Marked]], seconds: float) -> list[Marked]:
    deadline = time.monotonic() + seconds
    left = find()
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = find()
    return left


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _mark_of(pid: int) -> Mark | None:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    if _KEY not in raw:
        return None
    env = dict(item.partition("=")[::2] for item in raw.decode("utf-8", errors="replace").split("\0"))
    if not env.get(ENV_RUN):
        return None
    return Mark(
        run_id=env[ENV_RUN], trial=env.get(ENV_TRIAL, ""), owner=env.get(ENV_OWNER, ""), log=env.get(ENV_LOG, "")
    )


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """(name, fields from the third on) of /proc/PID/stat, proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head, _, rest = text.rpartition(")")
    return head.partition("(")[2], rest.split()


def _describe(pid: int, mark: Mark) -> Marked | None:
    stat = _stat(pid)
    if stat is None or stat[1][0] in "ZX":
        return None
    name, fields = stat
    return Marked(pid=pid, ticks=int(fields[19]), session=int(fields[3]), state=fields[0], name=name, mark=mark)


def _ticks(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1][19]) if stat else None


def _session(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1][3]) if stat else None


def _by_session(pid: int, sessions: dict[tuple[int, str], Mark]) -> Marked | None:
    session = _session(pid)
    for (wanted, log), mark in sessions.items():
        if session == wanted and log in _outputs(pid):
            return _describe(pid, mark)
    return None


def _outputs(pid: int) -> set[str]:
    out = set()
    for number in (1, 2):
        with contextlib.suppress(OSError):
            out.add(str(Path(f"/proc/{pid}/fd/{number}").readlink()))
    return out
