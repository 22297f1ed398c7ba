from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.core.host import Docker, Gpu, MigSlice
from sweeper.probes import host, host_gpu


class NVMLError(Exception):
    pass


class FakeNvml:
    """Two boards: one that answers everything, one that answers hardly anything."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_P2P_CAPS_INDEX_READ = (0,)
    NVML_P2P_CAPS_INDEX_NVLINK = 2

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlSystemGetDriverVersion": b"580.65.06",
            "nvmlSystemGetCudaDriverVersion_v2": 13010,
            "nvmlDeviceGetCount": 2,
            "nvmlDeviceGetTopologyCommonAncestor": 30,
        }
        if name in answers:
            return lambda *args: answers[name]
        if name == "nvmlDeviceGetHandleByIndex":
            return lambda index: index
        if name == "nvmlDeviceGetP2PStatus":
            return self._p2p
        if name == "nvmlDeviceGetHandleByUUID":
            return self._by_uuid
        first: dict[str, Any] = {
            "nvmlDeviceGetUUID": "GPU-aa",
            "nvmlDeviceGetName": b"NVIDIA RTX PRO 6000 Blackwell",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**30, total=96 * 2**30),
            "nvmlDeviceGetCudaComputeCapability": (12, 0),
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:41:00.0"),
            "nvmlDeviceGetCurrPcieLinkGeneration": 1,
            "nvmlDeviceGetMaxPcieLinkGeneration": 5,
            "nvmlDeviceGetCurrPcieLinkWidth": 8,
            "nvmlDeviceGetMaxPcieLinkWidth": 16,
            "nvmlDeviceGetEnforcedPowerLimit": 450000,
            "nvmlDeviceGetMigMode": (0, 0),
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=999999999, usedGpuMemory=2**30)],
        }

        def answer(handle: int, *args: Any) -> Any:
            if handle == 0 and name in first:
                return first[name]
            raise NVMLError("Not Supported")

        return answer

    def _p2p(self, one: int, two: int, index: int) -> int:
        # As the binding hands it to C; its own constant for reading is a tuple by mistake.
        return 0 * ctypes.c_uint(index).value + 1

    def _by_uuid(self, uuid: str) -> int:
        if uuid != "GPU-aa":
            raise NVMLError("Not Found")
        return 0


@pytest.fixture
def reader() -> host_gpu.Reader:
    return host_gpu.Reader(FakeNvml())


def test_a_board_is_read_with_units(reader: host_gpu.Reader) -> None:
    gpu = reader.gpus()[0]
    assert (gpu.name, gpu.uuid, gpu.sm) == ("NVIDIA RTX PRO 6000 Blackwell", "GPU-aa", "12.0")
    assert (gpu.memory_bytes, gpu.power_limit_w) == (96 * 2**30, 450.0)
    assert (gpu.pcie_gen, gpu.pcie_gen_max, gpu.pcie_width, gpu.pcie_width_max) == (1, 5, 8, 16)
    assert gpu.mig is False
    assert str(gpu.processes[0]) == "pid 999999999 (name unknown) 1.0 GiB"


def test_what_a_board_does_not_say_is_none_and_no_error(reader: host_gpu.Reader) -> None:
    gpu = reader.gpus()[1]
    assert gpu == Gpu(index=1, processes_known=False)


def test_driver_and_links_are_read(reader: host_gpu.Reader) -> None:
    assert reader.versions() == ("580.65.06", "13.1")
    link = reader.links(reader.gpus())[0]
    assert (link.a, link.b, link.p2p, link.path) == (0, 1, "chipset not supported", "host bridge")


def test_a_gpu_is_found_by_index_or_uuid(reader: host_gpu.Reader) -> None:
    assert reader.find("1") == 1
    assert reader.find("GPU-aa") == 0
    assert reader.find("GPU-gone") is None


GPUS = (
    Gpu(index=0, uuid="GPU-aa"),
    Gpu(
        index=1,
        uuid="GPU-bb",
        mig=True,
        mig_slices=(MigSlice(uuid="MIG-1", name=None, memory_bytes=None),) * 1
        + (MigSlice(uuid="MIG-2", name=None, memory_bytes=None),),
    ),
    Gpu(index=2, uuid="GPU-cc"),
)


@pytest.mark.parametrize(
    ("told", "given"),
    [
        (None, ("0", "MIG-1", "MIG-2", "2")),
        ("", ()),
        ("GPU-cc,GPU-aa", ("2", "0")),
        ("0", ("0",)),
        ("MIG-2", ("MIG-2",)),
        ("GPU-cc,GPU-zz,GPU-aa", ("2",)),
    ],
)
def test_a_server_may_be_given_what_cuda_would_see(told: str | None, given: tuple[str, ...]) -> None:
    environ = {} if told is None else {"CUDA_VISIBLE_DEVICES": told}
    assert host.visible(GPUS, environ) == given


def fake_root(root: Path) -> Path:
    files = {
        "proc/version": "Linux version 6.6.87.2-microsoft-standard-WSL2 (gcc)",
        "proc/cpuinfo": "processor : 0\nmodel name\t: AMD Threadripper\nflags : x\n",
        "proc/sys/kernel/numa_balancing": "1\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
        "sys/devices/system/node/node0/x": "",
        "sys/devices/system/node/node1/x": "",
        "sys/bus/pci/devices/0000:41:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:41:00.0/class": "0x030200\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_system_is_read_from_its_files(tmp_path: Path) -> None:
    seen = host.read_host(root=fake_root(tmp_path), folder=tmp_path / "logs")
    assert (seen.cpu, seen.system, seen.wsl) == ("AMD Threadripper", "Ubuntu 24.04.3 LTS", "WSL2")
    assert (seen.numa_nodes, seen.numa_balancing, seen.nvidia_hardware) == (2, True, True)
    assert seen.shm_bytes is None
    assert seen.disks[0].what == "runs"


def test_an_empty_root_gives_unknowns_and_no_error(tmp_path: Path) -> None:
    seen = host.read_host(root=tmp_path)
    assert (seen.wsl, seen.numa_nodes, seen.nvidia_hardware) == (None, None, False)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@oe-host)", "WSL2"),
        ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", "WSL1"),
        ("Linux version 6.8.0-45-generic (buildd@lcy02)", None),
    ],
)
def test_windows_subsystems_are_told_apart(line: str, kind: str | None) -> None:
    assert host.wsl(line) == kind


def test_the_facts_of_this_machine_are_plain_json() -> None:
    facts = host.host_facts(Docker(address="unix:///x", running=False))
    assert json.loads(json.dumps(facts))["docker"]["running"] is False
    assert facts["memory_bytes"] > 0
