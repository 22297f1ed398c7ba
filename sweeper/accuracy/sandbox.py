"""Run generated code that nobody has read: no network, no files of anybody's, no process that outlives it, little of
memory and time.

Where the kernel grants namespaces (as root, or unprivileged ones) the code sees a file system that cannot be written,
an empty /tmp of 16 MiB, its own processes and no network, and root has no capabilities. Where it grants less, less is
taken away, and the result says when the network was not. `python -I` ignores environment and user site; the code comes
through a pipe, so it needs no file.
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
PROCESSES = 32
"""Threads and processes beside those that the user already has."""
OUTPUT_BYTES = 65536
OUTPUT_CHARS = 400

_EMPTY = """while read -r _ place _; do mount -o remount,bind,ro "$place"; done </proc/self/mounts 2>/dev/null
for place in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o size=16m,mode=1777 none $place || exit 97; done
mount -t proc proc /proc || exit 97
cd /tmp && exec "$@"
"""
_READ_AND_RUN = "import sys; exec(compile(sys.stdin.buffer.read(), 'answer', 'exec'), {'__name__': '__main__'})\n"
_PROBE = "import json, decimal, socket; open('probe', 'w').write('x')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """`ok`: exit code 0. `problem` names what went wrong. `isolated`: whether the code had no network."""

    ok: bool
    problem: str | None
    isolated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Jail:
    """What this kernel lets us take away. `prefix`: what starts the interpreter."""

    prefix: tuple[str, ...] = ()
    network: bool = True
    """Whether the code still has one."""
    files: bool = True
    """Whether it can still write files of others."""


def _ladder() -> list[Jail]:
    """From the tightest to none."""
    unshare, shell, setpriv = (shutil.which(name) for name in ("unshare", "sh", "setpriv"))
    if unshare is None or shell is None:
        return [Jail()]
    whole = (unshare, "--net", "--pid", "--fork", "--kill-child", "--mount")
    inside = (shell, "-c", _EMPTY, "sh")
    powerless = (setpriv or "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    return [
        Jail(prefix=(*whole, *inside, *powerless), network=False, files=False),
        Jail(prefix=(*whole, "--user", "--map-root-user", *inside, *powerless), network=False, files=False),
        Jail(prefix=(unshare, "--net", "--pid", "--fork", "--kill-child"), network=False),
        Jail(prefix=(unshare, "--user", "--net", "--pid", "--fork", "--kill-child"), network=False),
        Jail(prefix=(unshare, "--net"), network=False),
        Jail(prefix=(unshare, "--user", "--net"), network=False),
        Jail(),
    ]


@lru_cache(maxsize=1)
def jail() -> Jail:
    """The tightest one in which Python runs here."""
    return next((found for found in _ladder()[:-1] if _run(found, _PROBE, 5.0).ok), Jail())


def run_python(code: str, *, timeout_s: float = 10.0) -> Ran:
    """Run `code` to its end. Never raises for what the code does."""
    return _run(jail(), code, timeout_s)


def _run(held: Jail, code: str, timeout_s: float) -> Ran:
    with tempfile.TemporaryDirectory(prefix="sweeper-code-") as folder:
        limits = _limits(int(timeout_s) + 1)
        # Errors go to a file: a pipe would stay open as long as any child of the code does.
        with open(Path(folder) / "stderr", "w+b") as err:
            process = subprocess.Popen(
                [*held.prefix, sys.executable, "-I", "-B", "-c", _READ_AND_RUN], cwd=folder, 
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}, stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=err, start_new_session=True, preexec_fn=lambda: _limit(limits),
            )  # fmt: skip
            problem = _finish(process, code, timeout_s)
            err.seek(max(0, err.seek(0, os.SEEK_END) - OUTPUT_BYTES))
            problem = problem or _problem(process.returncode, err.read(OUTPUT_BYTES))
    return Ran(ok=problem is None, problem=problem, isolated=not held.network)


def _finish(process: subprocess.Popen[bytes], code: str, timeout_s: float) -> str | None:
    """Feed the code and wait; everything it started goes with it."""
    try:
        process.communicate(code.encode("utf-8", "replace"), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"no end after {timeout_s:g} s"
    finally:
        # Without a process namespace, children that left the group outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return None


def _limits(cpu_s: int) -> list[tuple[int, int]]:
    """Resources and their bounds. The number of processes does not bind root, whose process namespace ends with it."""
    return [
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, _threads_of(os.getuid()) + PROCESSES),
    ]


def _limit(limits: list[tuple[int, int]]) -> None:
    for what, wanted in limits:
        hard = resource.getrlimit(what)[1]
        bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (bound, bound))


def _threads_of(uid: int) -> int:
    """Threads that a user has now: the limit counts them all."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
            count += int(facts["Threads"]) if int(facts["Uid"].split()[0]) == uid else 0
    return count


def _problem(code: int, err: bytes) -> str | None:
    if code == 0:
        return None
    if code < 0:
        return f"killed by signal {-code}"
    lines = err.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:OUTPUT_CHARS] if lines else f"exit code {code}"
