"""What every planner needs: where the cell runs, what the model is called, how arguments are put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from sweeper.core.arguments import runs_on_cpu
from sweeper.core.values import Cell, LaunchPlan, Mount

MODEL_IN_CONTAINER = "/models"

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}


def in_container(cell: Cell) -> bool:
    """Whether the plan is for a container: the launcher says so, or an image is named and no interpreter is."""
    if cell.launcher is not None:
        return cell.launcher == "docker"
    return cell.image is not None and cell.python is None


def is_folder(model: str) -> bool:
    """Whether a model name is written as a path. Nothing is looked up: `org/name` is a hub id, `./name` a folder."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..")


def served_name(model: str) -> str:
    """Short name for requests: the last part of a path or of a hub id."""
    name = PurePosixPath(model.rstrip("/")).name
    return re.sub(r"[^\w.\-]", "-", name) or "model"


def model_argument(cell: Cell) -> str:
    """The model as the server sees it: a folder is mounted into a container under /models."""
    if in_container(cell) and is_folder(cell.model):
        return f"{MODEL_IN_CONTAINER}/{served_name(cell.model)}"
    return cell.model


def mounts(cell: Cell) -> tuple[Mount, ...]:
    """The folders that a container needs to see, read-only."""
    if not in_container(cell):
        return ()
    folders = [cell.model, cell.speculative.model if cell.speculative else None]
    return tuple(
        Mount(source=folder, target=f"{MODEL_IN_CONTAINER}/{served_name(folder)}")
        for folder in dict.fromkeys(folders)
        if folder and is_folder(folder)
    )


def draft_argument(cell: Cell, model: str) -> str:
    """A draft model as the server sees it."""
    inside = in_container(cell) and is_folder(model)
    return f"{MODEL_IN_CONTAINER}/{served_name(model)}" if inside else model


def environment(cell: Cell, defaults: Mapping[str, str]) -> dict[str, str]:
    """Defaults, then what the matrix says. A model in a folder keeps the engine off the hub."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if is_folder(cell.model) else {}
    return {**QUIET, **offline, **defaults, **dict(cell.env)}


def gpus_needed(cell: Cell) -> int:
    return 0 if runs_on_cpu(cell) else cell.parallelism.world_size


def module_plan(
    cell: Cell, module: str, argv: Sequence[str], env: Mapping[str, str], *, image: str, shm_bytes: int
) -> LaunchPlan:
    """`python -m module`, the same natively and in a container; `image` where the cell names none.

    An official image's entry point changes between releases, so the plan sets its own and never relies on it.
    """
    inside = in_container(cell)
    gpus = gpus_needed(cell)
    return LaunchPlan(
        argv=("-m", module, *argv) if inside else (cell.python or "python3", "-m", module, *argv),
        env=environment(cell, env),
        served_model=served_name(cell.model),
        image=(cell.image or image) if inside else None,
        entrypoint=("python3",) if inside else None,
        mounts=mounts(cell),
        gpus=gpus,
        ipc_host=inside and gpus > 0,
        shm_bytes=shm_bytes if inside else None,
    )


def attached(cell: Cell, metrics_path: str | None) -> LaunchPlan:
    """A plan that starts nothing: the server is up."""
    return LaunchPlan(
        argv=(),
        env={},
        served_model=served_name(cell.model),
        url=cell.url,
        gpus=0,
        metrics_path=metrics_path,
    )
