"""What the launchers share: ports, placeholders, redaction, the line a person can paste."""

from __future__ import annotations

import errno
import os
import random
import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from sweeper.core.errors import EnvironmentNotReady, LaunchFailed
from sweeper.core.redact import is_secret, is_secret_flag, redact_known

LOOPBACK = "127.0.0.1"
_PORTS = range(20000, 32000)
"""Below the range from which Linux takes ports of outgoing connections (32768..60999), which could steal a free one."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now. Raises LaunchFailed(port-in-use) when none is left."""
    for port in random.sample(_PORTS, k=200):
        if port_is_free(port):
            return port
    raise LaunchFailed("port-in-use", f"no free port between {_PORTS.start} and {_PORTS.stop} on {LOOPBACK}")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # As servers do: a connection left in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def claim_port(wanted: int | None) -> int:
    """`wanted` if it is free, any free port for None. Raises LaunchFailed(port-in-use) naming the holder."""
    if wanted is None:
        return free_port()
    if port_is_free(wanted):
        return wanted
    raise LaunchFailed(
        "port-in-use",
        f"port {wanted} on {LOOPBACK} is held by {port_holder(wanted)}",
        hint=f"stop it, or leave the port to sweeper; look with: ss -ltnp 'sport = :{wanted}'",
    )


def port_holder(port: int) -> str:
    """Who listens on a TCP port: `pid 812 (python3)`, or that it cannot be told."""
    try:
        for conn in psutil.net_connections("tcp"):
            if conn.laddr and conn.laddr.port == port and conn.status == psutil.CONN_LISTEN and conn.pid:
                return f"pid {conn.pid} ({psutil.Process(conn.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return "a process that this user may not see"


def fill(text: str, *, port: int, host: str) -> str:
    """`{port}` and `{host}` replaced; every other brace stays (JSON arguments are full of them)."""
    return text.replace("{port}", str(port)).replace("{host}", host)


def fill_all(words: Iterable[str], *, port: int, host: str) -> tuple[str, ...]:
    return tuple(fill(word, port=port, host=host) for word in words)


def redact(env: Mapping[str, str]) -> dict[str, str]:
    """Secret values replaced by `$NAME`, which is also what a pasted shell line needs."""
    return {name: f"${name}" if is_secret(name, value) else redact_known(value) for name, value in env.items()}


def redact_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Values of `--api-key` and its like replaced by `$SECRET`."""
    out: list[str] = []
    before = ""
    for word in argv:
        flag, equals, value = word.partition("=")
        if is_secret_flag(before, word):
            out.append("$SECRET")
        elif equals and is_secret_flag(flag, value):
            out.append(f"{flag}=$SECRET")
        else:
            out.append(redact_known(word))
        before = word
    return tuple(out)


def shell_word(name: str, value: str) -> str:
    """`NAME=value`, quoted; a redacted value stays a variable that the shell expands."""
    return f'{name}="${name}"' if value == f"${name}" else f"{name}={shlex.quote(value)}"


def shell_argv(argv: Sequence[str]) -> str:
    return " ".join(word if word == "$SECRET" or word.endswith("=$SECRET") else shlex.quote(word) for word in argv)


def open_log(path: Path) -> int:
    """File descriptor of a server log, created with its folder, in append mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as err:
        raise log_refused(path, err) from None


def log_refused(path: Path, err: OSError) -> LaunchFailed | EnvironmentNotReady:
    """The error for a log that cannot be written."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return LaunchFailed(
            "disk-full",
            f"no space left for the server log {path}",
            hint=f"free some space; look with: df -h {shlex.quote(str(path.parent))}",
        )
    return EnvironmentNotReady(
        f"cannot write the server log {path}: {err.strerror}",
        hint=f"make the folder writable; look with: ls -ld {shlex.quote(str(path.parent))}",
    )


def tail(path: Path, lines: int = 40, limit: int = 65536) -> tuple[str, ...]:
    """Last lines of a file, read from its last `limit` bytes; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip("\r") for line in text.split("\n") if line.strip())[-lines:]


def oom_kills() -> int | None:
    """The kernel's count of processes killed for lack of memory since boot (/proc/vmstat); None where it has none."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return None


def killed_for_memory(code: int | None, kills_before: int | None) -> bool:
    """Whether the kernel killed something for lack of memory since `kills_before` and this server died by SIGKILL."""
    now = oom_kills()
    return code == 137 and kills_before is not None and now is not None and now > kills_before
