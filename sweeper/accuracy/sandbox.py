"""Run generated code that nobody has read: own process group, no network, little memory, little time.

With unprivileged or root namespaces (`unshare --net`) the code has no network at all; without them it runs with the
other limits and the result says so. `python -I` ignores environment and user site; the working folder is temporary.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MEMORY_BYTES = 512 * 1024 * 1024
FILE_BYTES = 1024 * 1024
OPEN_FILES = 64
OUTPUT_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """`ok`: exit code 0. `problem` names what went wrong. `isolated`: whether the code had no network."""

    ok: bool
    problem: str | None
    isolated: bool


@lru_cache(maxsize=1)
def network_prefix() -> tuple[str, ...]:
    """Arguments that take the network away, or () where the kernel grants none of them."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    for flags in (("--net",), ("--user", "--net")):
        try:
            if subprocess.run([unshare, *flags, "true"], capture_output=True, timeout=5).returncode == 0:
                return (unshare, *flags)
        except (OSError, subprocess.SubprocessError):
            continue
    return ()


def run_python(code: str, *, timeout_s: float = 10.0) -> Ran:
    """Run `code` to its end. Never raises for what the code does."""
    prefix = network_prefix()
    with tempfile.TemporaryDirectory(prefix="sweeper-code-") as folder:
        script = Path(folder) / "main.py"
        script.write_text(code, "utf-8")
        process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-B", str(script)],
            cwd=folder, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: _limit(int(timeout_s) + 1),
        )  # fmt: skip
        try:
            _, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return Ran(ok=False, problem=f"no end after {timeout_s:g} s", isolated=bool(prefix))
        finally:
            # Children of the code outlive it unless its whole group goes.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Ran(ok=process.returncode == 0, problem=_problem(process.returncode, err), isolated=bool(prefix))


def _limit(cpu_s: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _problem(code: int, err: bytes) -> str | None:
    if code == 0:
        return None
    if code < 0:
        return f"killed by signal {-code}"
    lines = err.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:OUTPUT_CHARS] if lines else f"exit code {code}"
