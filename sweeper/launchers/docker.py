"""A server in a container, through the Docker SDK.

The port is published on 127.0.0.1 only, folders with weights are mounted read-only, the container carries the marks of
labels.py and is removed when it has been stopped and its log read to the end.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from sweeper.core.errors import LaunchFailed
from sweeper.core.ports import Exit, Launch
from sweeper.core.values import LaunchPlan
from sweeper.launchers import common, docker_image, docker_spec
from sweeper.launchers.docker_client import FAILURES, connect, explain
from sweeper.launchers.docker_errors import refused
from sweeper.launchers.docker_log import LogFollower
from sweeper.launchers.docker_spec import Spec
from sweeper.launchers.labels import Mark, this_owner

_ASK_EVERY_S = 0.4
_LOG_END_S = 15.0
_SILENT_ENGINE_S = 30.0
"""How long the Docker engine may not answer before the container counts as lost."""


def _quiet(text: str) -> None:
    del text


class DockerLauncher:
    """Starts servers as containers. `say` receives the progress of a pull, `port` None takes a free one per launch.

    `pull_s`: longest time that all pulls of one image may take together, in seconds.
    """

    name = "docker"

    def __init__(
        self,
        *,
        say: Callable[[str], None] = _quiet,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
        client: Callable[..., Any] = connect,
        pull_s: float = math.inf,
    ) -> None:
        self._say = say
        self._pull_s = pull_s
        self._spent_s: dict[str, float] = {}
        self._port = port
        self._environ = os.environ if environ is None else environ
        self._connect = client

    def start(
        self, plan: LaunchPlan, *, log_path: Path, run_id: str, trial: str, gpus: tuple[str, ...]
    ) -> DockerHandle:
        """Raises LaunchFailed: docker-not-running, image-not-found, image-pull-unauthorized, docker-no-gpu-runtime,
        cdi-device-unresolvable, port-in-use, disk-full, model-folder-missing, mount-refused, executable-missing."""
        if not plan.image:
            raise LaunchFailed(
                "image-not-found", "the cell names no image to run in", hint="set `image:`, or: --launcher process"
            )
        client = self._connect()
        image = self._image(client, plan.image)
        port = common.claim_port(self._port)
        gpus = gpus if plan.gpus else ()
        mark = Mark(run_id=run_id, trial=trial, owner=this_owner())
        spec = docker_spec.build(
            plan,
            image,
            port=port,
            gpus=gpus,
            labels=mark.labels(),
            hub_cache=self._hub_cache(),
            cdi=bool(plan.gpus) and gpus_through_cdi(client),
            secrets={name: self._environ[name] for name in ("HF_TOKEN",) if self._environ.get(name)},
        )
        container = _created_and_started(client, spec)
        record = Launch(
            launcher=self.name,
            base_url=f"http://{common.LOOPBACK}:{port}",
            port=port,
            argv=common.redact_argv((*(spec.entrypoint or ()), *spec.argv)),
            by_hand=docker_spec.by_hand(spec),
            env=common.redact(spec.env),
            image=plan.image,
            image_digest=image.proof,
            container_id=str(container.id),
            gpus=gpus,
        )
        return DockerHandle(record, container, log_path, follow=self._connect)

    def _image(self, client: Any, name: str) -> docker_image.ImageFacts:
        """Cells that share an image share its deadline: one that never arrives is waited for once, not per cell."""
        begun_s = time.monotonic()
        spent_s = self._spent_s.get(name, 0.0)
        try:
            return docker_image.ensure(client, name, self._say, pull_s=self._pull_s - spent_s)
        finally:
            self._spent_s[name] = spent_s + time.monotonic() - begun_s

    def _hub_cache(self) -> Path | None:
        home = self._environ.get("HF_HOME")
        folder = Path(home) if home else Path(self._environ.get("HOME", "/root")) / ".cache" / "huggingface"
        return folder if folder.is_dir() else None


class DockerHandle:
    """A running container."""

    def __init__(self, record: Launch, container: Any, log_path: Path, *, follow: Callable[..., Any]) -> None:
        self.record = record
        self._container = container
        self._log_path = log_path
        self._lock = threading.RLock()
        self._exit: Exit | None = None
        self._state: Mapping[str, Any] = {}
        self._removed = False
        self._asked_s = -math.inf
        self._answered_s = time.monotonic()
        self._oom_before = common.oom_kills()
        self._log = LogFollower(log_path, lambda: _log_stream(follow, str(container.id)), self._still_running)
        self._log.start()

    def poll(self) -> Exit | None:
        """Asks the engine at most every 0.4 s; between two questions the last answer holds."""
        with self._lock:
            if self._exit is None and time.monotonic() - self._asked_s >= _ASK_EVERY_S:
                self._asked_s = time.monotonic()
                self._exit = self._ask("exited by itself", ours=False)
            return self._exit

    def stop(self, grace_s: float) -> Exit:
        """`docker stop`, the rest of the log, then the container is removed."""
        with self._lock:
            if self._removed and self._exit:
                return self._exit
            self._exit = self._exit or self._ask("exited by itself", ours=False) or self._end(grace_s)
        self._log.finish(_LOG_END_S)
        with self._lock:
            self._removed = self._remove()
            return self._exit

    def pids(self) -> tuple[int, ...] | None:
        """From `docker top`, in the numbering of the machine that runs the engine."""
        try:
            listed = self._container.top()
            column = listed["Titles"].index("PID")
            return tuple(int(row[column]) for row in listed["Processes"])
        except (*FAILURES, KeyError, TypeError, ValueError):
            return None

    def post_mortem(self) -> Mapping[str, Any]:
        ended = self.poll()
        return {
            "exit_code": ended.code if ended else None,
            "how": ended.how if ended else "still running",
            "oom_killed": ended.oom_killed if ended else False,
            "engine_says": str(self._state.get("Error") or ""),
            "last_lines": list(common.tail(self._log_path)),
            "log_problem": self._log.problem,
            "container_left": None if self._removed or not ended else self.record.container_id,
        }

    def __enter__(self) -> DockerHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(grace_s=10.0)

    def _ask(self, how: str, *, ours: bool) -> Exit | None:
        """None while it runs, also while the engine is silent for a short time (it may be restarting)."""
        try:
            self._container.reload()
        except NotFound:
            return Exit(code=None, stopped_by_us=ours, how="the container was removed by someone else")
        except FAILURES:
            if time.monotonic() - self._answered_s < _SILENT_ENGINE_S:
                return None
            return Exit(code=None, stopped_by_us=ours, how=f"Docker has not answered for {_SILENT_ENGINE_S:g} s")
        self._answered_s = time.monotonic()
        self._state = self._container.attrs.get("State") or {}
        if self._state.get("Status") not in ("exited", "dead"):
            return None
        code = self._state.get("ExitCode")
        oom = bool(self._state.get("OOMKilled")) or (not ours and common.killed_for_memory(code, self._oom_before))
        return Exit(code=code, oom_killed=oom, stopped_by_us=ours, how=how)

    def _end(self, grace_s: float) -> Exit:
        begun_s = time.monotonic()
        try:
            self._container.stop(timeout=max(0, math.ceil(grace_s)))
        except FAILURES:
            with contextlib.suppress(*FAILURES):
                self._container.kill()
        took_s = time.monotonic() - begun_s
        ended = self._ask("docker stop (SIGTERM)", ours=True)
        if ended is None:
            return Exit(code=None, stopped_by_us=True, how="docker stop had no effect")
        if ended.code == 137 and took_s >= math.ceil(grace_s):
            return Exit(code=137, oom_killed=ended.oom_killed, stopped_by_us=True, how="SIGKILL")
        return ended

    def _remove(self) -> bool:
        for _ in range(3):
            try:
                self._container.remove(force=True)
                return True
            except NotFound:
                return True
            except FAILURES:
                time.sleep(0.2)
        return False

    def _still_running(self) -> bool:
        with self._lock:
            ended = self._exit or self._ask("exited by itself", ours=False)
            return ended is None


def _log_stream(client: Callable[..., Any], container_id: str) -> Iterator[bytes]:
    """The whole log from its first byte, followed. Its own connection: reading may wait for ever."""
    try:
        connection = client(timeout_s=None)
    except LaunchFailed as gone:
        raise OSError(gone.message) from None
    try:
        yield from connection.api.logs(container_id, stdout=True, stderr=True, stream=True, follow=True)
    finally:
        connection.close()


def _created_and_started(client: Any, spec: Spec) -> Any:
    """The started container. Nothing stays behind when that fails."""
    arguments = docker_spec.create_arguments(spec)
    try:
        container = client.containers.create(**arguments)
    except FAILURES as err:
        raise refused(explain(err), f"create a container from {spec.image.name}") from None
    try:
        container.start()
    except BaseException as err:
        with contextlib.suppress(*FAILURES):
            container.remove(force=True)
        if isinstance(err, FAILURES):
            raise refused(explain(err), f"start a container from {spec.image.name}") from None
        raise
    return container


def gpus_through_cdi(client: Any) -> bool:
    """Whether GPUs must be named as CDI devices: the engine lists such devices and has no NVIDIA runtime."""
    try:
        info = client.info()
    except FAILURES:
        return False
    listed = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or ()]
    return "nvidia" not in (info.get("Runtimes") or {}) and any(name.startswith("nvidia.com/gpu") for name in listed)
