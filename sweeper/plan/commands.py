"""The command of a cell as one shell line, before any launch: port 8000 stands for the one that is picked then."""

from __future__ import annotations

import shlex

from sweeper.core.values import Cell, LaunchPlan
from sweeper.launchers import common
from sweeper.launchers.registry import name_for

PORT = 8000


def command_line(cell: Cell, plan: LaunchPlan, launcher: str | None = None) -> str:
    """A line to paste. Secrets stay variables. What only a launch knows is left out: image digest, GPU ids, caches."""
    kind = name_for(cell, launcher)
    if kind == "attach" or plan.url:
        return f"# running already at {plan.url or cell.url}"
    return _docker(plan) if kind == "docker" and plan.image else _native(plan)


def _native(plan: LaunchPlan) -> str:
    env = {name: common.fill(value, port=PORT, host=common.LOOPBACK) for name, value in plan.env.items()}
    words = [common.shell_word(name, value) for name, value in common.redact(env).items()]
    argv = common.fill_all(plan.argv, port=PORT, host=common.LOOPBACK)
    line = " ".join([*words, common.shell_argv(common.redact_argv(argv))])
    return f"cd {shlex.quote(plan.cwd)} && {line}" if plan.cwd else line


def _docker(plan: LaunchPlan) -> str:
    from sweeper.launchers import docker_spec
    from sweeper.launchers.docker_image import ImageFacts

    inside = plan.container_port
    spec = docker_spec.Spec(
        image=ImageFacts(name=plan.image or "", id="", digest=None, user="0"),
        argv=common.fill_all(plan.argv, port=inside, host="0.0.0.0"),
        entrypoint=plan.entrypoint,
        env={name: common.fill(value, port=inside, host="0.0.0.0") for name, value in plan.env.items()},
        labels={},
        port=PORT,
        container_port=inside,
        binds=plan.mounts,
        cache_volume=None,
        gpus=(f"count:{plan.gpus}",) if plan.gpus else (),
        cdi=False,
        shm_bytes=plan.shm_bytes,
        ipc_host=plan.ipc_host,
        cwd=plan.cwd,
    )
    return docker_spec.by_hand(spec)
