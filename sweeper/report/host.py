"""A host's facts, its problems and what it can do, as text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from sweeper.core.host import Docker, Gpu, Host, Problem

_COLOURS = {"error": "31", "warning": "33", "note": "36"}


def text(host: Host, problems: Sequence[Problem], abilities: Sequence[str], *, colour: bool = False) -> str:
    """Facts, then problems worst first, each with what mends it, then what works now."""
    wide = shutil.get_terminal_size((100, 24)).columns
    parts = ["\n".join(row for name, fact in _facts(host) for row in _indented(fact, wide, f"{name:<10}", " " * 10))]
    if host.gpus:
        parts.append(_gpus(host))
    if host.links:
        parts.append(_links(host))
    parts.append("\n".join(line for problem in problems for line in _problem(problem, colour)) or "no problems found")
    works = [row for line in abilities for row in _indented(line, wide, "  ", "    ")]
    parts.append("\n".join(["works here", *works]))
    return "\n\n".join(parts) + "\n"


def _indented(text: str, wide: int, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text, wide, initial_indent=first, subsequent_indent=then, break_on_hyphens=False, break_long_words=False
    )


def _facts(host: Host) -> Iterator[tuple[str, str]]:
    nodes = f", {host.numa_nodes} NUMA nodes" if (host.numa_nodes or 1) > 1 else ""
    yield "cpu", f"{host.cpu or '-'}, {_or(host.cores)} cores, {_or(host.threads)} threads{nodes}"
    yield "memory", f"{_gib(host.memory_bytes)}, {_gib(host.available_bytes)} available"
    yield "/dev/shm", f"{_gib(host.shm_bytes)}, {_gib(host.shm_free_bytes)} free"
    where = ", inside a container" if host.container else ""
    yield "system", f"{host.system or '-'}, kernel {host.kernel or '-'}{', ' + host.wsl if host.wsl else ''}{where}"
    yield "driver", f"{host.driver} (CUDA up to {_or(host.cuda)})" if host.driver else f"- ({host.no_gpu_why})"
    yield "docker", _docker(host.docker)
    for disk in host.disks:
        yield "disk", f"{_gib(disk.free_bytes)} free of {_gib(disk.total_bytes)} for {disk.what} ({disk.path})"


def _docker(docker: Docker | None) -> str:
    if docker is None or not docker.running:
        return "-"
    gpus = {"runtime": "GPUs through the NVIDIA runtime", "cdi": "GPUs through CDI"}.get(docker.gpu or "", "no GPUs")
    return f"{docker.version}, storage {docker.storage}, {gpus}"


def _gpus(host: Host) -> str:
    header = ("gpu", "name", "sm", "memory", "used", "PCIe now", "PCIe max", "power limit", "NUMA", "MIG", "held by")
    return tabulate([_gpu(gpu) for gpu in host.gpus], headers=header, tablefmt="simple", disable_numparse=True)


def _gpu(gpu: Gpu) -> tuple[str, ...]:
    limit = "-" if gpu.power_limit_w is None else f"{gpu.power_limit_w:.0f} W"
    mig = "-" if gpu.mig is None else f"{len(gpu.mig_slices)} slices" if gpu.mig else "off"
    held = ", ".join(map(str, gpu.processes)) or ("nobody" if gpu.processes_known else "-")
    return (
        str(gpu.index),
        gpu.name or "-",
        gpu.sm or "-",
        _gib(gpu.memory_bytes),
        _gib(gpu.used_bytes),
        _pcie(gpu.pcie_gen, gpu.pcie_width),
        _pcie(gpu.pcie_gen_max, gpu.pcie_width_max),
        limit,
        _or(gpu.numa_node),
        mig,
        held,
    )


def _links(host: Host) -> str:
    rows = [(f"{link.a} - {link.b}", link.path or "-", link.p2p or "-") for link in host.links]
    return tabulate(rows, headers=("GPUs", "path", "peer-to-peer"), tablefmt="simple", disable_numparse=True)


def _problem(problem: Problem, colour: bool) -> list[str]:
    head = f"\x1b[{_COLOURS[problem.severity]}m{problem.severity}\x1b[0m" if colour else problem.severity
    return [f"{head}: {problem.what} [{problem.id}]", f"  {problem.mend}"]


def _pcie(gen: int | None, width: int | None) -> str:
    return f"{_or(gen)} x{_or(width)}" if gen or width else "-"


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**30:.1f} GiB"


def _or(value: object) -> str:
    return "-" if value is None else str(value)
