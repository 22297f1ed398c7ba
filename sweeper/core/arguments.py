"""What the author's own arguments, image and variables say about a cell."""

from __future__ import annotations

import re
from dataclasses import replace

from sweeper.core.values import Cell, Hardware, LaunchPlan


def runs_on_cpu(cell: Cell) -> bool:
    """Whether the cell is for a CPU build: the declared version, the image, an argument or the environment says so."""
    told = (cell.engine_version or "", cell.image or "")
    args = " ".join(cell.extra_args)
    return (
        any(re.search(r"(^|[^a-z])cpu([^a-z]|$)", text.lower()) for text in told)
        or bool(re.search(r"--device[ =]cpu", args))
        or any(name.startswith("VLLM_CPU_") for name, _ in cell.env)
    )


def for_machine(plan: LaunchPlan, hardware: Hardware) -> LaunchPlan:
    """The plan as the machine takes it: a matrix for CPUs (`count: 0`) asks no launcher for GPUs."""
    return replace(plan, gpus=0) if hardware.count == 0 and plan.gpus else plan


def flag_in(args: tuple[str, ...], *names: str) -> bool:
    """Whether the author's own arguments set one of these flags (`--flag value` or `--flag=value`)."""
    wanted = {name.replace("_", "-") for name in names}
    return any(arg.split("=", 1)[0].replace("_", "-") in wanted for arg in args)


def value_of(args: tuple[str, ...], *names: str) -> str | None:
    """Value of the last of these flags in the author's own arguments."""
    found: str | None = None
    for place, arg in enumerate(args):
        head, joined, tail = arg.partition("=")
        if head.replace("_", "-") not in names:
            continue
        found = tail if joined else (args[place + 1] if place + 1 < len(args) else None)
    return found
