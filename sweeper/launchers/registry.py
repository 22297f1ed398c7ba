"""Launchers by the name used in a matrix and by `--launcher`."""

from __future__ import annotations

import math
from collections.abc import Callable

from sweeper.core.errors import UsageError
from sweeper.core.ports import Launcher
from sweeper.core.values import LAUNCHERS, Cell
from sweeper.launchers.attach import AttachLauncher
from sweeper.launchers.docker import DockerLauncher
from sweeper.launchers.process import ProcessLauncher


def make(name: str, *, say: Callable[[str], None] = lambda text: None, pull_s: float = math.inf) -> Launcher:
    """`say` receives progress lines (an image being pulled), which may take `pull_s` seconds.

    Raises UsageError for a name that is none of NAMES.
    """
    match name:
        case "docker":
            return DockerLauncher(say=say, pull_s=pull_s)
        case "process":
            return ProcessLauncher()
        case "attach":
            return AttachLauncher()
        case _:
            raise UsageError(f"no launcher '{name}'", hint=f"Launchers: {', '.join(LAUNCHERS)}")


def name_for(cell: Cell, default: str | None) -> str:
    """The launcher of a cell: its own, attach for one with a URL, the run's, else what the cell describes."""
    if cell.launcher:
        return cell.launcher
    if cell.url:
        return "attach"
    if default:
        return default
    return "docker" if cell.image and not cell.python else "process"
