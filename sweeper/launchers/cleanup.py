"""Find and remove what a crashed run left: containers and processes, by their marks and by nothing else.

What a sweep that still runs has started is left alone: its owner lives (labels.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from sweeper.core.errors import LaunchFailed
from sweeper.launchers import processes, scratch
from sweeper.launchers.docker_client import FAILURES, connect
from sweeper.launchers.docker_spec import CACHE_LABEL
from sweeper.launchers.labels import LABEL_OWNER, LABEL_RUN, LABEL_TRIAL, owner_alive


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One thing that carries our mark. `live`: the sweep that started it still runs."""

    kind: str
    """process, container, volume."""
    id: str
    """pid, container id (12 hex) or volume name."""
    what: str
    run_id: str
    trial: str
    ports: tuple[int, ...]
    """TCP ports on which it listens here."""
    live: bool

    def __str__(self) -> str:
        ports = f", port {', '.join(map(str, self.ports))}" if self.ports else ""
        return f"{self.kind} {self.id} ({self.what}) of {self.trial or self.run_id}{ports}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """Result of a clean-up."""

    removed: tuple[Leftover, ...]
    kept: tuple[Leftover, ...]
    """Of sweeps that still run."""
    failed: tuple[Leftover, ...]
    docker_problem: str | None
    """Why containers could not be looked for; None: they were."""


def find(run_id: str | None = None) -> tuple[tuple[Leftover, ...], str | None]:
    """(everything marked, why containers could not be looked for). `run_id` None: of every run."""
    found = [*_processes(), *(containers := _containers())[0]]
    chosen = tuple(item for item in found if run_id is None or item.run_id == run_id)
    return chosen, containers[1]


def remove_left(run_id: str | None = None, *, also_live: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove what dead sweeps left. `also_live`: also what running sweeps have started. Idempotent."""
    found, problem = find(run_id)
    kept = tuple(item for item in found if item.live and not also_live)
    doomed = tuple(item for item in found if item not in kept)
    if dry_run:
        return Cleaned(removed=doomed, kept=kept, failed=(), docker_problem=problem)
    _end_processes(doomed)
    for item in doomed:
        if item.kind == "container":
            _remove_container(item.id)
    if run_id is None:
        scratch.remove_of_dead_sweeps()
    still = {(item.kind, item.id) for item in find(run_id)[0]}
    failed = tuple(item for item in doomed if (item.kind, item.id) in still)
    removed = tuple(item for item in doomed if item not in failed)
    return Cleaned(removed=removed, kept=kept, failed=failed, docker_problem=problem)


def clean(run_id: str) -> str:
    """Before a run is resumed: remove what it left; one sentence about it."""
    done = remove_left(run_id)
    parts = []
    if done.removed:
        parts.append("removed what a crashed sweep left: " + "; ".join(map(str, done.removed)))
    if done.failed:
        parts.append("could not remove: " + "; ".join(map(str, done.failed)))
    return ". ".join(parts) or "the earlier sweep left nothing running"


def remove_caches(*, dry_run: bool = False) -> tuple[str, ...]:
    """Names of the volumes with compile caches that were removed. Raises LaunchFailed(docker-not-running)."""
    client = connect()
    try:
        volumes = client.volumes.list(filters={"label": CACHE_LABEL})
        for volume in () if dry_run else volumes:
            volume.remove()
        return tuple(str(volume.name) for volume in volumes)
    finally:
        client.close()


def _processes() -> list[Leftover]:
    entries = processes.marked()
    ports = _listening([entry.pid for entry in entries])
    return [
        Leftover(
            kind="process",
            id=str(entry.pid),
            what=entry.name,
            run_id=entry.mark.run_id,
            trial=entry.mark.trial,
            ports=ports.get(entry.pid, ()),
            live=owner_alive(entry.mark.owner),
        )
        for entry in entries
    ]


def _listening(pids: list[int]) -> dict[int, tuple[int, ...]]:
    out = {}
    for pid in pids:
        try:
            listening = [c for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        except (psutil.Error, OSError):
            continue
        out[pid] = tuple(sorted({int(connection.laddr.port) for connection in listening}))
    return out


def _containers() -> tuple[list[Leftover], str | None]:
    try:
        client = connect(timeout_s=20.0)
    except LaunchFailed as why:
        return [], why.message
    try:
        listed = client.containers.list(all=True, filters={"label": LABEL_RUN}, ignore_removed=True)
        return [_container(entry) for entry in listed], None
    except FAILURES as err:
        return [], str(err)
    finally:
        client.close()


def _container(entry: Any) -> Leftover:
    labels = entry.labels
    bound = (entry.attrs.get("NetworkSettings") or {}).get("Ports") or {}
    ports = {int(host["HostPort"]) for hosts in bound.values() for host in hosts or () if host.get("HostPort")}
    return Leftover(
        kind="container",
        id=str(entry.short_id),
        what=f"{entry.status}, {(entry.attrs.get('Config') or {}).get('Image', 'image unknown')}"[:80],
        run_id=labels.get(LABEL_RUN, ""),
        trial=labels.get(LABEL_TRIAL, ""),
        ports=tuple(sorted(ports)),
        live=owner_alive(labels.get(LABEL_OWNER, "")),
    )


def _end_processes(doomed: tuple[Leftover, ...]) -> None:
    trials = {(item.run_id, item.trial) for item in doomed if item.kind == "process"}
    if not trials:
        return

    def still() -> list[processes.Marked]:
        # By trial, not by pid: what they fork while they end must go as well.
        return [entry for entry in processes.marked() if (entry.mark.run_id, entry.mark.trial) in trials]

    processes.end(still, term_s=5.0)


def _remove_container(container_id: str) -> None:
    try:
        client = connect(timeout_s=60.0)
        client.containers.get(container_id).remove(force=True)
        client.close()
    except (LaunchFailed, *FAILURES):
        # Looked for again afterwards: what is still there is reported.
        return
