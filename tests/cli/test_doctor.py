from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import machine
from sweeper.cli.main import main
from sweeper.core.host import Docker, Gpu, GpuProcess, Host, Link

GIB = 2**30
HOST = Host(
    cpu="AMD Threadripper",
    cores=32,
    threads=64,
    numa_nodes=1,
    numa_balancing=False,
    load_1m=0.1,
    memory_bytes=256 * GIB,
    available_bytes=200 * GIB,
    shm_bytes=None,
    shm_free_bytes=None,
    kernel="6.8",
    system="Ubuntu 24.04",
    wsl="WSL2",
    container=False,
    python="3.11",
    nvidia_hardware=False,
    driver=None,
    cuda=None,
    no_gpu_why="NVML Shared Library Not Found",
    gpus=(),
    links=(),
    disks=(),
    docker=Docker(
        address="unix:///x", running=False, problem="no Docker engine answers", mend="sudo systemctl start docker"
    ),
)
GPU = Gpu(
    index=0,
    name="RTX PRO 6000",
    sm="12.0",
    memory_bytes=96 * GIB,
    used_bytes=20 * GIB,
    pcie_gen=1,
    pcie_gen_max=5,
    pcie_width=16,
    pcie_width_max=16,
    processes=(GpuProcess(pid=7, name="python3", used_bytes=20 * GIB),),
)
BUSY = replace(
    HOST,
    gpus=(GPU, replace(GPU, index=1)),
    driver="580.1",
    links=(Link(a=0, b=1, p2p="ok", path="host bridge"),),
    wsl=None,
)


def doctor(host: Host, monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(machine, "facts", lambda folder: host)
    return main(["doctor", *args])


def test_a_machine_without_a_gpu_is_told_what_it_can_still_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(HOST, monkeypatch) == 0
    said = capsys.readouterr().out
    assert "make quickstart" in said
    assert "warning: no Docker engine answers [docker-not-running]\n  sudo systemctl start docker\n" in said
    assert "/dev/shm  -, - free" in said
    assert "\x1b" not in said


def test_a_held_gpu_makes_the_machine_not_ready_and_names_the_holder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(BUSY, monkeypatch) == 3
    said = capsys.readouterr().out
    assert "error: GPU 0: 20.0 of 96.0 GiB held by pid 7 (python3) 20.0 GiB [gpu-memory-in-use]" in said
    assert "1 x16" in said
    assert "host bridge" in said


def test_json_is_one_object_with_a_schema(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(BUSY, monkeypatch, "--json") == 3
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["ready"]) == (1, False)
    assert said["host"]["gpus"][0]["memory_bytes"] == 96 * GIB
    assert {problem["id"] for problem in said["problems"]} == {"gpu-memory-in-use", "docker-not-running"}
    assert all({"id", "severity", "what", "mend"} == set(problem) for problem in said["problems"])


def test_this_machine_is_looked_at_without_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--logs", str(tmp_path / "not" / "yet"), "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["host"]["cpu"]
