"""A launch plan as the arguments of a container, and as the `docker run` line that a person can paste."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Ulimit
from docker.types import Mount as DockerMount

from sweeper.core.errors import LaunchFailed
from sweeper.core.redact import is_secret, redact_known
from sweeper.core.values import LaunchPlan, Mount
from sweeper.launchers import common
from sweeper.launchers.docker_image import ImageFacts

CACHE = "/root/.cache"
"""Inside the container: the engines' official images run as root, and their compile caches lie there."""
HUB = f"{CACHE}/huggingface"
CACHE_LABEL = "sweeper.cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container to be created."""

    image: ImageFacts
    argv: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    env: Mapping[str, str]
    labels: Mapping[str, str]
    port: int
    """On 127.0.0.1 of this machine."""
    container_port: int
    binds: tuple[Mount, ...]
    cache_volume: str | None
    """Named volume for compile caches. A named one, because Docker fills it with what the image ships there."""
    gpus: tuple[str, ...]
    """Indexes, UUIDs or MIG ids; `all` or a bare count as `count:N` where nobody named any."""
    cdi: bool
    """GPUs through CDI: an engine without the NVIDIA runtime that knows CDI devices."""
    shm_bytes: int | None
    ipc_host: bool
    cwd: str | None


def build(
    plan: LaunchPlan,
    image: ImageFacts,
    *,
    port: int,
    gpus: tuple[str, ...],
    labels: Mapping[str, str],
    hub_cache: Path | None,
    cdi: bool,
    secrets: Mapping[str, str],
) -> Spec:
    """Raises LaunchFailed(model-folder-missing) for a mount whose source is not there.

    `hub_cache`: this machine's Hugging Face cache, None where it has none; `secrets`: variables handed on from the
    environment of sweeper (HF_TOKEN) unless the plan sets them.
    """
    env = {name: common.fill(value, port=plan.container_port, host="0.0.0.0") for name, value in plan.env.items()}
    offline = env.get("HF_HUB_OFFLINE") == "1"
    wanted = gpus or ((f"count:{plan.gpus}",) if plan.gpus else ())
    return Spec(
        image=image,
        argv=common.fill_all(plan.argv, port=plan.container_port, host="0.0.0.0"),
        entrypoint=plan.entrypoint,
        env={**({} if offline else secrets), **_cache_env(image), **env},
        labels=labels,
        port=port,
        container_port=plan.container_port,
        binds=(
            *(_resolved(mount) for mount in plan.mounts),
            *_hub(image, hub_cache, offline=offline, mounted=bool(plan.mounts)),
        ),
        cache_volume=f"sweeper-cache-{image.id.removeprefix('sha256:')[:12]}" if image.is_root else None,
        gpus=wanted,
        cdi=cdi,
        shm_bytes=plan.shm_bytes,
        ipc_host=plan.ipc_host,
        cwd=plan.cwd,
    )


def _resolved(mount: Mount) -> Mount:
    source = Path(mount.source).expanduser().resolve()
    if not source.exists():
        raise LaunchFailed(
            "model-folder-missing", f"{source} does not exist", hint=f"look with: ls {shlex.quote(str(source.parent))}"
        )
    return Mount(source=str(source), target=mount.target, read_only=mount.read_only)


def _hub(image: ImageFacts, cache: Path | None, *, offline: bool, mounted: bool) -> tuple[Mount, ...]:
    """The hub's cache, for a model that is no mounted folder; written to only where the engine may have to download."""
    if cache is None or not image.is_root or mounted or (offline and not cache.is_dir()):
        return ()
    return (Mount(source=str(cache), target=HUB, read_only=offline),)


def _cache_env(image: ImageFacts) -> dict[str, str]:
    return {"TRITON_CACHE_DIR": f"{CACHE}/triton", "HF_HOME": HUB} if image.is_root else {}


def create_arguments(spec: Spec) -> dict[str, Any]:
    """Keyword arguments of `client.containers.create`."""
    mounts = [DockerMount(bind.target, bind.source, type="bind", read_only=bind.read_only) for bind in spec.binds]
    if spec.cache_volume:
        mounts.insert(0, DockerMount(CACHE, spec.cache_volume, type="volume", labels={CACHE_LABEL: spec.image.name}))
    arguments: dict[str, Any] = {
        "image": spec.image.id,
        "command": list(spec.argv),
        "environment": dict(spec.env),
        "labels": dict(spec.labels),
        "ports": {f"{spec.container_port}/tcp": (common.LOOPBACK, spec.port)},
        "mounts": mounts,
        "init": True,
        # Said here, because the engine's default may be a driver that cannot be read back or that drops old lines. The
        # `local` driver would keep bytes that are no UTF-8, but loses the end of lines above 16 KiB.
        "log_config": LogConfig(type="json-file", config={"max-size": "100g"}),
        "ipc_mode": "host" if spec.ipc_host else None,
        "shm_size": None if spec.ipc_host else spec.shm_bytes,
        "working_dir": spec.cwd,
    }
    if spec.entrypoint is not None:
        # Docker takes one empty word, not an empty list, as "no entry point".
        arguments["entrypoint"] = list(spec.entrypoint) or [""]
    if spec.gpus:
        arguments["device_requests"] = [_devices(spec)]
        arguments["ulimits"] = [
            Ulimit(name="memlock", soft=-1, hard=-1),
            Ulimit(name="stack", soft=1 << 26, hard=1 << 26),
        ]
    return {name: value for name, value in arguments.items() if value is not None}


def _devices(spec: Spec) -> DeviceRequest:
    first = spec.gpus[0]
    count = int(first.removeprefix("count:")) if first.startswith("count:") else None
    if spec.cdi:
        names = [f"nvidia.com/gpu={name}" for name in spec.gpus] if count is None else ["nvidia.com/gpu=all"]
        return DeviceRequest(driver="cdi", device_ids=names)
    if count is not None:
        return DeviceRequest(count=count, capabilities=[["gpu"]])
    return DeviceRequest(device_ids=list(spec.gpus), capabilities=[["gpu"]])


def by_hand(spec: Spec) -> str:
    """One line for a shell. Secrets are handed on by name, the image is pinned by what it is."""
    words = ["docker", "run", "--rm", "--init", "-p", f"{common.LOOPBACK}:{spec.port}:{spec.container_port}"]
    words += _gpu_words(spec)
    if spec.ipc_host:
        words.append("--ipc=host")
    elif spec.shm_bytes:
        words += ["--shm-size", str(spec.shm_bytes)]
    if spec.cache_volume:
        words += ["-v", f"{spec.cache_volume}:{CACHE}"]
    for bind in spec.binds:
        words += ["-v", f"{bind.source}:{bind.target}" + (":ro" if bind.read_only else "")]
    if spec.cwd:
        words += ["-w", spec.cwd]
    for name, value in spec.env.items():
        words += ["-e", name if is_secret(name, value) else f"{name}={redact_known(value)}"]
    argv = spec.argv
    if spec.entrypoint is not None:
        words += ["--entrypoint", spec.entrypoint[0] if spec.entrypoint else ""]
        argv = (*spec.entrypoint[1:], *argv)
    pinned = spec.image.digest or spec.image.name
    return f"{shlex.join(words)} {shlex.quote(pinned)} {common.shell_argv(common.redact_argv(argv))}".rstrip()


def _gpu_words(spec: Spec) -> list[str]:
    if not spec.gpus:
        return []
    if spec.cdi:
        return [f"--device=nvidia.com/gpu={name}" for name in spec.gpus if not name.startswith("count:")] or [
            "--device=nvidia.com/gpu=all"
        ]
    first = spec.gpus[0]
    chosen = first.removeprefix("count:") if first.startswith("count:") else f'"device={",".join(spec.gpus)}"'
    return ["--gpus", chosen, "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
