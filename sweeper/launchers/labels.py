"""Marks on everything sweeper starts, so that clean-up goes by the mark and by nothing else.

A process carries the mark in its environment, a container in its labels. `owner` names the controller that started it:
`<boot id, 8 hex>-<pid>-<start time in clock ticks>`; a controller whose owner string no longer matches a living process
has died, and what it left may be removed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ENV_RUN = "SWEEPER_RUN"
ENV_TRIAL = "SWEEPER_TRIAL"
ENV_OWNER = "SWEEPER_OWNER"
ENV_LOG = "SWEEPER_LOG"

LABEL_RUN = "sweeper.run"
LABEL_TRIAL = "sweeper.trial"
LABEL_OWNER = "sweeper.owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Who started something, for which trial of which run."""

    run_id: str
    trial: str
    owner: str
    log: str = ""
    """Absolute path of the server log, the second proof for processes that overwrote their environment."""

    def environ(self) -> dict[str, str]:
        return {ENV_RUN: self.run_id, ENV_TRIAL: self.trial, ENV_OWNER: self.owner, ENV_LOG: self.log}

    def labels(self) -> dict[str, str]:
        return {LABEL_RUN: self.run_id, LABEL_TRIAL: self.trial, LABEL_OWNER: self.owner}


def this_owner() -> str:
    """The owner string of the calling process."""
    return f"{_boot_id()}-{os.getpid()}-{_start_ticks(os.getpid())}"


def owner_alive(owner: str) -> bool:
    """True while the controller of that owner string runs on this boot of this machine.

    An owner string that cannot be read counts as dead: nothing we start writes such a string.
    """
    boot, _, rest = owner.partition("-")
    pid, _, ticks = rest.partition("-")
    if boot != _boot_id() or not pid.isdigit():
        return False
    return _start_ticks(int(pid)) == ticks


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return "unknown0"


def _start_ticks(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when the process is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else after_name[19]
