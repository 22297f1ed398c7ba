"""A folder per native launch for what an engine would leave in /tmp.

vLLM makes its sockets under VLLM_RPC_BASE_PATH, /tmp by default, and does not remove them when it is stopped. The name
carries the owner (labels.py), so that the folder of a sweep that died is told from that of one that runs. It is short:
the path of a socket has at most 107 bytes, of which vLLM needs 37. TMPDIR stays as it is, for compile caches lie there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from sweeper.launchers.labels import owner_alive, this_owner

_NAME = re.compile(r"sweeper-(?P<owner>\w{8}-\d+-\d+)-\w+")
_LONGEST = 70


def make() -> Path | None:
    """A new folder; None where there is no room or no right for one: the engine then uses its own default."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"sweeper-{this_owner()}-"))
    except OSError:
        return None
    if len(os.fsencode(folder)) > _LONGEST:
        remove(folder)
        return None
    return folder


def environment(folder: Path | None) -> dict[str, str]:
    """Variables that make engines use it."""
    return {} if folder is None else {"VLLM_RPC_BASE_PATH": str(folder)}


def remove(folder: Path | None) -> None:
    """Idempotent."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def remove_of_dead_sweeps() -> None:
    """Folders of this user whose owner no longer lives."""
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).iterdir():
            name = _NAME.fullmatch(folder.name)
            if name and not owner_alive(name["owner"]) and _ours(folder):
                remove(folder)


def _ours(folder: Path) -> bool:
    try:
        return folder.stat(follow_symlinks=False).st_uid == os.geteuid() and not folder.is_symlink()
    except OSError:
        return False
