"""Rules over a host's facts: what stands in the way of a sweep, and what can be done all the same."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.core.host import Gpu, Host, Problem

GIB = 2**30
_CUDA13_DRIVER = 580
_HELD_BYTES = 256 * 2**20
"""A compute process below this is an idle context, not a server."""


def problems(host: Host) -> tuple[Problem, ...]:
    """Worst first."""
    found = [*_driver(host), *_held(host), *_gpus(host), *_docker(host), *_space(host), *_rest(host)]
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda problem: order[problem.severity]))


def abilities(host: Host) -> tuple[str, ...]:
    """What this machine can do now, one sentence each with its command."""
    docker = bool(host.docker and host.docker.running)
    out = []
    if host.gpus:
        gpu_docker = docker and host.docker is not None and host.docker.gpu is not None
        where = "in Docker or natively" if gpu_docker else "natively (python: or command: of a cell)"
        out.append(f"sweep on {len(host.gpus)} GPU(s), {where}: sweeper run MATRIX")
    else:
        out.append("sweep a small MoE on the CPU with a real engine: make quickstart")
        out.append("plan for the hardware a matrix names, memory fit included: sweeper plan MATRIX")
        out.append("measure and check a server on another machine: sweeper bench URL, sweeper check URL")
    out.append("read any engine's log: sweeper diagnose LOG")
    out.append("report, judge again and compare runs made elsewhere: sweeper report RUN, sweeper judge RUN")
    if docker:
        out.append("run CPU engines in containers: sweeper run MATRIX --launcher docker")
    return tuple(out)


def _driver(host: Host) -> Iterator[Problem]:
    why = host.no_gpu_why or ""
    if host.gpus:
        major = (host.driver or "").split(".")[0]
        if major.isdigit() and int(major) < _CUDA13_DRIVER:
            yield Problem(
                id="driver-too-old",
                severity="warning",
                what=f"driver {host.driver} runs no CUDA 13 image (the default of current vLLM and SGLang images)",
                mend=f"install driver {_CUDA13_DRIVER} or newer, or use image tags that end in -cu129",
            )
        return
    if "mismatch" in why.lower():
        yield Problem(
            id="driver-library-mismatch",
            severity="error",
            what=f"the driver was updated under the running kernel: {why}",
            mend="sudo reboot",
        )
    elif host.nvidia_hardware:
        yield Problem(
            id="driver-not-loaded",
            severity="error",
            what=f"there is an NVIDIA device, and no driver that answers: {why}",
            mend="nvidia-smi; sudo modprobe nvidia; sudo dmesg | grep -i nvrm | tail",
        )
    else:
        yield Problem(
            id="no-gpu",
            severity="note",
            what=f"no NVIDIA GPU here ({why or 'none on the bus'})",
            mend="see: what works here",
        )


def _held(host: Host) -> Iterator[Problem]:
    """Memory of a GPU that somebody holds already: an engine started now would profile it wrongly or not fit."""
    for gpu in host.gpus:
        held = [process for process in gpu.processes if (process.used_bytes or _HELD_BYTES) >= _HELD_BYTES]
        if held:
            ours = all(process.run for process in held)
            yield Problem(
                id="gpu-memory-in-use",
                severity="error",
                what=f"{_memory(gpu)} held by {', '.join(str(process) for process in held)}",
                mend="sweeper clean" if ours else "stop it, or name other GPUs; look with: nvidia-smi",
            )
        elif (gpu.used_bytes or 0) > 4 * GIB:
            yield Problem(
                id="gpu-memory-in-use",
                severity="warning",
                what=f"{_memory(gpu)} in use by a process that cannot be seen from here",
                mend="look with: nvidia-smi; docker ps (under WSL2: the Windows task manager)",
            )


def _memory(gpu: Gpu) -> str:
    used, total = (gpu.used_bytes or 0) / GIB, (gpu.memory_bytes or 0) / GIB
    return f"GPU {gpu.index}: {used:.1f} of {total:.1f} GiB"


def _gpus(host: Host) -> Iterator[Problem]:
    for gpu in host.gpus:
        if gpu.pcie_width and gpu.pcie_width_max and gpu.pcie_width < gpu.pcie_width_max:
            yield Problem(
                id="pcie-width",
                severity="warning",
                what=f"GPU {gpu.index} runs on {gpu.pcie_width} of {gpu.pcie_width_max} PCIe lanes",
                mend="another slot or riser; look with: "
                f"sudo lspci -vv -s {(gpu.bus_id or '').lower()[-10:]} | grep LnkSta",
            )
        if gpu.mig and not gpu.mig_slices:
            yield Problem(
                id="mig-without-slices",
                severity="error",
                what=f"GPU {gpu.index} is in MIG mode and has no slice, so nothing can run on it",
                mend=f"sudo nvidia-smi -i {gpu.index} -mig 0 (whole GPU), or make slices: sudo nvidia-smi mig -lgip",
            )
        elif gpu.mig:
            yield Problem(
                id="mig",
                severity="note",
                what=f"GPU {gpu.index} is cut into {len(gpu.mig_slices)} MIG slices; no parallelism across slices",
                mend=f"name one: --gpus {gpu.mig_slices[0].uuid}",
            )
        if gpu.power_limit_w and gpu.power_default_w and gpu.power_limit_w < gpu.power_default_w - 1:
            yield Problem(
                id="power-capped",
                severity="note",
                what=f"GPU {gpu.index} is capped at {gpu.power_limit_w:.0f} of {gpu.power_default_w:.0f} W",
                mend=f"sudo nvidia-smi -i {gpu.index} -pl {gpu.power_default_w:.0f}",
            )
    without = [str(gpu.index) for gpu in host.gpus if gpu.persistence is False]
    if without and not host.wsl:
        yield Problem(
            id="persistence-off",
            severity="note",
            what=f"persistence mode is off on GPU {', '.join(without)}: each start pays for driver initialisation",
            mend="sudo nvidia-smi -pm 1",
        )
    yield from _between(host)


def _between(host: Host) -> Iterator[Problem]:
    off = [link for link in host.links if link.p2p not in (None, "ok")]
    if off:
        first = off[0]
        yield Problem(
            id="p2p-off",
            severity="note",
            what=f"no peer-to-peer between {len(off)} of {len(host.links)} GPU pairs (GPU {first.a} and {first.b}: "
            f"{first.p2p}); tensor parallel goes through host memory",
            mend="nvidia-smi topo -p2p r; if NCCL hangs at start, set NCCL_P2P_DISABLE=1 in the cell's env",
        )
    nodes = {gpu.numa_node for gpu in host.gpus if gpu.numa_node is not None and gpu.numa_node >= 0}
    if len(nodes) > 1:
        yield Problem(
            id="numa-spread",
            severity="note",
            what=f"the GPUs hang on {len(nodes)} NUMA nodes; cells across nodes pay for it",
            mend="nvidia-smi topo -m; give small cells GPUs of one node with --gpus",
        )
    if host.numa_balancing and (host.numa_nodes or 1) > 1:
        yield Problem(
            id="numa-balancing",
            severity="note",
            what="the kernel moves memory between NUMA nodes while servers run, which disturbs timings",
            mend="sudo sysctl kernel.numa_balancing=0",
        )


def _docker(host: Host) -> Iterator[Problem]:
    docker = host.docker
    if docker is None:
        return
    if not docker.running:
        yield Problem(
            id="docker-not-running",
            severity="warning",
            what=docker.problem or f"no Docker engine answers at {docker.address}",
            mend=docker.mend or "sudo systemctl start docker",
        )
    elif host.gpus and docker.gpu is None:
        yield Problem(
            id="docker-no-gpu-runtime",
            severity="error",
            what="containers get no GPU: Docker knows neither the NVIDIA runtime nor a CDI device",
            mend="sudo apt-get install nvidia-container-toolkit && sudo nvidia-ctk runtime configure --runtime=docker "
            "&& sudo systemctl restart docker",
        )


def _space(host: Host) -> Iterator[Problem]:
    for disk in host.disks:
        need, warn = (2, 40) if disk.what == "Docker images" else (1, 10)
        free = disk.free_bytes / GIB
        if free < warn:
            yield Problem(
                id="disk-full",
                severity="error" if free < need else "warning",
                what=f"{free:.1f} GiB free for {disk.what} at {disk.path}",
                mend="docker system df; docker image prune" if disk.what == "Docker images" else f"df -h {disk.path}",
            )
    shm = host.shm_bytes
    if shm is not None and shm < GIB and len(host.gpus) > 1:
        yield Problem(
            id="shm-too-small",
            severity="warning",
            what=f"/dev/shm has {shm / 2**20:.0f} MiB; native servers with TP above 1 need more",
            mend="sudo mount -o remount,size=8G /dev/shm",
        )


def _rest(host: Host) -> Iterator[Problem]:
    if host.wsl:
        yield Problem(
            id="wsl",
            severity="note",
            what=f"{host.wsl}: pinned memory is limited, GPU processes are not listed, Windows uses some GPU memory, "
            "and memory is half of the machine's unless .wslconfig says otherwise",
            mend="set memory= in %UserProfile%\\.wslconfig, then: wsl --shutdown",
        )
    if host.available_bytes is not None and host.available_bytes < 4 * GIB:
        yield Problem(
            id="host-memory-low",
            severity="warning",
            what=f"{host.available_bytes / GIB:.1f} GiB of memory available",
            mend="ps aux --sort=-rss | head",
        )
    if host.load_1m is not None and host.cores and host.load_1m > 0.75 * (host.threads or host.cores):
        yield Problem(
            id="host-busy",
            severity="note",
            what=f"load {host.load_1m:.1f} on {host.threads or host.cores} threads: timings will suffer",
            mend="ps aux --sort=-%cpu | head",
        )
