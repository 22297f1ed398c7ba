from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.core.doctor import abilities, problems
from sweeper.core.host import Disk, Docker, Gpu, GpuProcess, Host, Link, MigSlice

GIB = 2**30
DOCKER = Docker(address="unix:///var/run/docker.sock", running=True, version="28", gpu="runtime")
GPU = Gpu(
    index=0,
    uuid="GPU-aa",
    name="RTX PRO 6000",
    memory_bytes=96 * GIB,
    used_bytes=0,
    pcie_width=16,
    pcie_width_max=16,
    power_limit_w=600,
    power_default_w=600,
    mig=False,
    persistence=True,
    numa_node=0,
)
GOOD = Host(
    cpu="x",
    cores=32,
    threads=64,
    numa_nodes=1,
    numa_balancing=False,
    load_1m=0.1,
    memory_bytes=256 * GIB,
    available_bytes=200 * GIB,
    shm_bytes=128 * GIB,
    shm_free_bytes=128 * GIB,
    kernel="6.8",
    system="Ubuntu",
    wsl=None,
    container=False,
    python="3.11",
    nvidia_hardware=True,
    driver="580.65",
    cuda="13.0",
    no_gpu_why=None,
    gpus=(GPU, replace(GPU, index=1, uuid="GPU-bb")),
    links=(Link(a=0, b=1, p2p="ok", path="host bridge"),),
    disks=(Disk(what="runs", path="/data", total_bytes=900 * GIB, free_bytes=500 * GIB),),
    docker=DOCKER,
)
NO_GPU = replace(
    GOOD, gpus=(), links=(), driver=None, nvidia_hardware=False, no_gpu_why="NVML Shared Library Not Found"
)


def found(host: Host) -> dict[str, str]:
    return {problem.id: problem.severity for problem in problems(host)}


def one(**changes: object) -> Host:
    return replace(GOOD, gpus=(replace(GPU, **changes),), links=())  # type: ignore[arg-type]


def test_a_machine_in_order_has_no_problems() -> None:
    assert problems(GOOD) == ()
    assert "2 GPU(s), in Docker or natively" in abilities(GOOD)[0]


def test_no_gpu_is_a_note_and_what_works_is_said() -> None:
    assert found(NO_GPU) == {"no-gpu": "note"}
    text = " ".join(abilities(NO_GPU))
    for command in ("make quickstart", "sweeper plan", "sweeper diagnose", "sweeper bench"):
        assert command in text


HELD = GpuProcess(pid=7, name="python3", used_bytes=20 * GIB)


@pytest.mark.parametrize(
    ("host", "id", "severity"),
    [
        (replace(NO_GPU, nvidia_hardware=True, no_gpu_why="Driver Not Loaded"), "driver-not-loaded", "error"),
        (replace(NO_GPU, no_gpu_why="Driver/library version mismatch"), "driver-library-mismatch", "error"),
        (replace(GOOD, driver="570.124"), "driver-too-old", "warning"),
        (one(used_bytes=21 * GIB, processes=(HELD,)), "gpu-memory-in-use", "error"),
        (one(used_bytes=21 * GIB), "gpu-memory-in-use", "warning"),
        (one(pcie_width=4), "pcie-width", "warning"),
        (one(mig=True), "mig-without-slices", "error"),
        (one(mig=True, mig_slices=(MigSlice(uuid="MIG-1", name=None, memory_bytes=None),)), "mig", "note"),
        (one(power_limit_w=400), "power-capped", "note"),
        (one(persistence=False), "persistence-off", "note"),
        (replace(GOOD, links=(Link(a=0, b=1, p2p="chipset not supported", path=None),)), "p2p-off", "note"),
        (replace(GOOD, gpus=(GPU, replace(GPU, index=1, numa_node=1))), "numa-spread", "note"),
        (replace(GOOD, numa_nodes=2, numa_balancing=True), "numa-balancing", "note"),
        (replace(GOOD, docker=replace(DOCKER, running=False)), "docker-not-running", "warning"),
        (replace(GOOD, docker=replace(DOCKER, gpu=None)), "docker-no-gpu-runtime", "error"),
        (replace(GOOD, disks=(replace(GOOD.disks[0], free_bytes=GIB // 2),)), "disk-full", "error"),
        (replace(GOOD, disks=(replace(GOOD.disks[0], free_bytes=5 * GIB),)), "disk-full", "warning"),
        (replace(GOOD, shm_bytes=64 * 2**20), "shm-too-small", "warning"),
        (replace(GOOD, wsl="WSL2"), "wsl", "note"),
        (replace(GOOD, available_bytes=GIB), "host-memory-low", "warning"),
        (replace(GOOD, load_1m=60.0), "host-busy", "note"),
    ],
)
def test_each_problem_is_found_and_comes_with_what_mends_it(host: Host, id: str, severity: str) -> None:
    assert found(host) == {id: severity}
    assert all(problem.mend for problem in problems(host))


def test_what_sweeper_left_on_a_gpu_is_mended_by_clean() -> None:
    host = one(used_bytes=21 * GIB, processes=(replace(HELD, run="2026-r"),))
    assert problems(host)[0].mend == "sweeper clean"


def test_errors_come_first() -> None:
    host = replace(GOOD, wsl="WSL2", docker=replace(DOCKER, gpu=None), available_bytes=GIB)
    assert [problem.severity for problem in problems(host)] == ["error", "warning", "note"]
