"""This machine, put together from what the probes and the launchers know about it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeper.core.doctor import abilities, problems
from sweeper.core.host import Host, Problem
from sweeper.launchers.cleanup import Cleaned, Leftover, remove_caches, remove_left
from sweeper.launchers.docker_host import docker_facts
from sweeper.probes.host import read_host
from sweeper.report import host as report

NOT_READY = 3


def facts(folder: Path | None = None) -> Host:
    """Everything known about this machine now. `folder`: where runs are kept."""
    return read_host(docker_facts(), folder=folder)


def doctor_json(host: Host) -> dict[str, Any]:
    """Object of `sweeper doctor --json`: schema, ready, host, problems, works."""
    found = problems(host)
    return {
        "schema": 1,
        "ready": not _errors(found),
        "host": asdict(host),
        "problems": [asdict(problem) for problem in found],
        "works": list(abilities(host)),
    }


def doctor_text(host: Host, *, colour: bool) -> str:
    return report.text(host, problems(host), abilities(host), colour=colour)


def exit_code(host: Host) -> int:
    """3 when something keeps cells from running or from being measured, else 0. No GPU at all is no error."""
    return NOT_READY if _errors(problems(host)) else 0


def _errors(found: tuple[Problem, ...]) -> list[Problem]:
    return [problem for problem in found if problem.severity == "error"]


def clean(*, run_id: str | None, also_live: bool, dry_run: bool) -> Cleaned:
    return remove_left(run_id, also_live=also_live, dry_run=dry_run)


def clean_caches(*, dry_run: bool) -> tuple[str, ...]:
    return remove_caches(dry_run=dry_run)


def cleaned_json(done: Cleaned, *, dry_run: bool, caches: tuple[str, ...]) -> dict[str, Any]:
    """Object of `sweeper clean --json`."""
    return {"schema": 1, "dry_run": dry_run, **asdict(done), "caches": list(caches)}


def cleaned_text(done: Cleaned, *, dry_run: bool, caches: tuple[str, ...]) -> str:
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {item}" for item in done.removed]
    lines += [f"{verb} cache volume {name}" for name in caches]
    lines += [f"kept {item}: its sweep still runs (--all removes it too)" for item in done.kept]
    lines += [f"could not remove {item}; by hand: {_by_hand(item)}" for item in done.failed]
    return "\n".join(lines or ["nothing to clean"]) + "\n"


def _by_hand(item: Leftover) -> str:
    return f"docker rm -f {item.id}" if item.kind == "container" else f"sudo kill -9 {item.id}"
