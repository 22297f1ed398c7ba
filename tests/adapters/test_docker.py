"""The Docker launcher against a client that only remembers what it was asked."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from sweeper.core.errors import LaunchFailed
from sweeper.core.values import LAUNCHERS, LaunchPlan, Mount
from sweeper.launchers import docker_image, docker_spec, registry
from sweeper.launchers.docker import DockerHandle, DockerLauncher, gpus_through_cdi
from sweeper.launchers.docker_client import connect
from sweeper.launchers.docker_errors import not_running, refused
from sweeper.launchers.docker_image import ImageFacts
from sweeper.launchers.docker_log import LogFollower

IMAGE = ImageFacts(name="org/engine:1", id="sha256:" + "ab" * 32, digest="org/engine@sha256:cd", user="")


class FakeContainer:
    id = "c0ffee" * 10

    def __init__(self, client: FakeClient) -> None:
        self.client = client
        self.state: dict[str, Any] = {"Status": "running", "ExitCode": 0, "OOMKilled": False, "Error": ""}
        self.calls: list[str] = []

    @property
    def attrs(self) -> dict[str, Any]:
        return {"State": self.state}

    def start(self) -> None:
        if self.client.start_error:
            raise docker.errors.APIError("500", explanation=self.client.start_error)
        self.calls.append("start")

    def reload(self) -> None:
        if self.client.gone:
            raise docker.errors.NotFound("no such container")

    def stop(self, timeout: int) -> None:
        self.calls.append(f"stop {timeout}")
        self.state = {"Status": "exited", "ExitCode": self.client.code_on_stop}

    def remove(self, force: bool) -> None:
        self.calls.append("remove")

    def top(self) -> dict[str, Any]:
        if self.state["Status"] != "running":
            raise docker.errors.APIError("409 Conflict", explanation=f"container {self.id} is not running")
        return {"Titles": ["UID", "PID", "CMD"], "Processes": [["root", "4711", "vllm"], ["root", "4800", "worker"]]}


class FakeClient:
    """Client, its `containers`, `images` and `api` in one object."""

    def __init__(self, *, have: bool = True, start_error: str = "", log: list[bytes] | None = None) -> None:
        self.containers = self.images = self.api = self
        self.have, self.start_error, self.log_chunks = have, start_error, log or [b"up\n"]
        self.pull_events: list[dict[str, Any]] = []
        self.gone = False
        self.timeout = 120.0
        self.code_on_stop = 143
        self.created: dict[str, Any] = {}
        self.container = FakeContainer(self)

    def __call__(self, **kwargs: Any) -> FakeClient:
        return self

    def info(self) -> dict[str, Any]:
        return {"Runtimes": {"nvidia": {}}}

    def get(self, name: str) -> Any:
        if not self.have:
            raise docker.errors.ImageNotFound(f"No such image: {name}")
        image = type("Image", (), {})()
        image.id = IMAGE.id
        image.attrs = {"RepoDigests": ["other/name@sha256:ee", "org/engine@sha256:cd"], "Config": {"User": ""}}
        return image

    def pull(self, repository: str, tag: str, stream: bool, decode: bool) -> Iterator[dict[str, Any]]:
        self.have = True
        return iter(self.pull_events)

    def create(self, **kwargs: Any) -> FakeContainer:
        self.created = kwargs
        return self.container

    def logs(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        yield from self.log_chunks

    def close(self) -> None:
        pass


def plan(**more: Any) -> LaunchPlan:
    return LaunchPlan(
        argv=("-m", "server", "--port", "{port}", "--api-key", "hunter2"),
        env={"A": "{host}:{port}", "HF_HUB_OFFLINE": "1"},
        served_model="m",
        image=IMAGE.name,
        entrypoint=("python3",),
        **more,
    )


def start(client: FakeClient, log: Path, wanted: LaunchPlan | None = None, **kwargs: Any) -> DockerHandle:
    gpus = kwargs.pop("gpus", ())
    launcher = DockerLauncher(client=client, environ=kwargs.pop("environ", {}), **kwargs)
    return launcher.start(wanted or plan(), log_path=log, run_id="r", trial="t-1", gpus=gpus)


def spec(wanted: LaunchPlan | None = None, **more: Any) -> docker_spec.Spec:
    arguments: dict[str, Any] = {
        "port": 20001,
        "gpus": (),
        "labels": {},
        "hub_cache": None,
        "cdi": False,
        "secrets": {},
    }
    return docker_spec.build(wanted or plan(), IMAGE, **{**arguments, **more})


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_container_is_made_from_the_plan(tmp_path: Path) -> None:
    client = FakeClient()
    with start(client, tmp_path / "s.log") as server:
        made = client.created
    assert made["image"] == IMAGE.id
    assert made["command"][:4] == ["-m", "server", "--port", "8000"]
    assert made["environment"]["A"] == "0.0.0.0:8000"
    assert made["ports"] == {"8000/tcp": ("127.0.0.1", server.record.port)}
    assert made["labels"]["sweeper.run"] == "r"
    assert made["labels"]["sweeper.trial"] == "t-1"
    assert made["labels"]["sweeper.owner"]
    assert "SWEEPER_RUN" not in made["environment"], "clean must not take a container's processes for native ones"
    assert server.record.image_digest == "org/engine@sha256:cd"
    assert "hunter2" not in str(server.record)


def test_the_container_is_stopped_and_removed_and_its_log_kept(tmp_path: Path) -> None:
    client = FakeClient(log=[b"one\n", b"two\n"])
    with start(client, tmp_path / "s.log") as server:
        ended = server.stop(2.5)
    assert client.container.calls == ["start", "stop 3", "remove"]
    assert (ended.code, ended.how, ended.stopped_by_us) == (143, "docker stop (SIGTERM)", True)
    assert (tmp_path / "s.log").read_bytes() == b"one\ntwo\n"


def test_a_containers_processes_have_the_hosts_numbers(tmp_path: Path) -> None:
    with start(FakeClient(), tmp_path / "s.log") as server:
        assert server.pids() == (4711, 4800)
        server.stop(1.0)
        assert server.pids() is None


def test_memory_death_is_told_from_other_deaths(tmp_path: Path) -> None:
    client = FakeClient()
    with start(client, tmp_path / "s.log") as server:
        client.container.state = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
        ended = server.stop(1.0)
    assert (ended.code, ended.oom_killed, ended.stopped_by_us) == (137, True, False)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "docker-no-gpu-runtime"),
        ("could not select device driver \"nvidia\" with capabilities: [[gpu]]", "docker-no-gpu-runtime"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0", "cdi-device-unresolvable"),
        ("nvidia-container-cli: device error: 7: unknown device: unknown", "invalid-device-ordinal"),
        ("nvidia-container-cli: nvml error: driver/library version mismatch", "driver-library-mismatch"),
        ("driver failed programming external connectivity: Bind for 127.0.0.1:20001 failed: port is already allocated",
         "port-in-use"),
        ("write /var/lib/docker/tmp/x: no space left on device", "disk-full"),
        ("something nobody has seen", "docker-refused"),
    ],
)  # fmt: skip
def test_a_refused_start_has_a_cause_and_leaves_no_container(words: str, cause: str, tmp_path: Path) -> None:
    client = FakeClient(start_error=words)
    with pytest.raises(LaunchFailed) as failed:
        start(client, tmp_path / "s.log", plan(gpus=1))
    assert failed.value.cause_id == cause
    assert failed.value.hint
    assert client.container.calls == ["remove"]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("manifest for org/engine:1 not found: manifest unknown: manifest unknown", "image-not-found"),
        ("pull access denied for engine, repository does not exist or may require 'docker login'", "image-not-found"),
        ("unauthorized: authentication required", "image-pull-unauthorized"),
        ("denied: requested access to the resource is denied", "image-pull-unauthorized"),
        ("toomanyrequests: You have reached your pull rate limit", "image-pull-unauthorized"),
        ("dial tcp: lookup registry on 127.0.0.53:53: no such host", "image-not-found"),
        ("failed to register layer: write /usr/lib/x: no space left on device", "disk-full"),
    ],
)
def test_a_refused_pull_has_a_cause_and_names_the_image(words: str, cause: str, tmp_path: Path) -> None:
    client = FakeClient(have=False)
    client.pull_events = [{"status": "Pulling fs layer", "id": "a"}, {"error": words}]
    with pytest.raises(LaunchFailed, match="org/engine:1") as failed:
        start(client, tmp_path / "s.log")
    assert failed.value.cause_id == cause
    assert client.created == {}


def test_a_pull_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_image, "_SAY_EVERY_S", 0.0)
    client = FakeClient(have=False)
    client.pull_events = [
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 5 * 10**8, "total": 2 * 10**9}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 0, "total": 10**9}},
        {"status": "Download complete", "id": "a"},
    ]
    said: list[str] = []
    with start(client, tmp_path / "s.log", say=said.append):
        pass
    assert said[0] == "pulling org/engine:1"
    assert "pulling org/engine:1: 0.5 of 3.0 GB" in said
    assert said[-2:] == ["pulling org/engine:1: 2.0 of 3.0 GB", "pulled org/engine:1"]


def test_a_pull_ends_at_its_deadline_and_the_next_cell_does_not_wait_again(tmp_path: Path) -> None:
    client, asked = FakeClient(have=False), []

    def slow(repository: str, tag: str, stream: bool, decode: bool) -> Iterator[dict[str, Any]]:
        asked.append(client.timeout)
        while True:
            time.sleep(0.01)
            yield {"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 10**9}}

    client.pull = slow  # type: ignore[method-assign]
    launcher = DockerLauncher(client=client, environ={}, pull_s=0.15)

    def refused_after_s() -> float:
        begun_s = time.monotonic()
        with pytest.raises(LaunchFailed, match="pull_s") as failed:
            launcher.start(plan(), log_path=tmp_path / "s.log", run_id="r", trial="t", gpus=())
        assert failed.value.cause_id == "image-pull-timeout"
        assert "docker pull org/engine:1" in (failed.value.hint or "")
        return time.monotonic() - begun_s

    assert refused_after_s() >= 0.15
    assert refused_after_s() < 0.15
    assert asked[0] == 1.0, "a silent registry is waited for no longer than the deadline"
    assert client.timeout == 120.0, "the other questions keep their patience"


def test_no_docker_engine_is_a_cause_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(LaunchFailed, match="no Docker engine answers") as failed:
        connect()
    assert failed.value.cause_id == "docker-not-running"
    assert "--launcher process" in (failed.value.hint or "")


def test_a_socket_that_the_user_may_not_open_is_told_apart() -> None:
    assert "usermod" in (not_running("PermissionError(13, 'Permission denied')", "unix:///x").hint or "")


def test_a_cell_without_an_image_says_so(tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="names no image"):
        start(FakeClient(), tmp_path / "s.log", LaunchPlan(argv=("x",), env={}, served_model="m"))


@pytest.mark.parametrize("gpus", [("0", "3"), ("GPU-1f", "GPU-2e"), ("MIG-77",)])
def test_gpus_go_by_index_uuid_or_mig_id(gpus: tuple[str, ...]) -> None:
    wanted = spec(plan(gpus=len(gpus)), gpus=gpus)
    request = docker_spec.create_arguments(wanted)["device_requests"][0]
    assert request["DeviceIDs"] == list(gpus)
    assert f"""--gpus '"device={",".join(gpus)}"'""" in docker_spec.by_hand(wanted)


def test_unnamed_gpus_are_counted() -> None:
    wanted = spec(plan(gpus=4))
    assert docker_spec.create_arguments(wanted)["device_requests"][0]["Count"] == 4
    assert "--gpus 4" in docker_spec.by_hand(wanted)


def test_cdi_devices_are_used_where_there_is_no_runtime() -> None:
    wanted = spec(plan(gpus=1), gpus=("0",), cdi=True)
    request = docker_spec.create_arguments(wanted)["device_requests"][0]
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", ["nvidia.com/gpu=0"])
    assert "--device=nvidia.com/gpu=0" in docker_spec.by_hand(wanted)

    class Engine:
        def info(self) -> dict[str, Any]:
            return {"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}

    assert gpus_through_cdi(Engine())
    assert not gpus_through_cdi(FakeClient())


def test_a_cpu_engine_gets_no_gpu(tmp_path: Path) -> None:
    client = FakeClient()
    with start(client, tmp_path / "s.log", gpus=("0",)) as server:
        assert "device_requests" not in client.created
        assert server.record.gpus == ()


def test_shared_memory_is_the_hosts_or_has_a_size() -> None:
    own = docker_spec.create_arguments(spec(plan(shm_bytes=1 << 30)))
    assert own["shm_size"] == 1 << 30
    hosts = docker_spec.create_arguments(spec(plan(shm_bytes=1 << 30, ipc_host=True)))
    assert hosts["ipc_mode"] == "host"
    assert "shm_size" not in hosts


def test_weights_are_mounted_read_only_and_must_exist(tmp_path: Path) -> None:
    wanted = spec(plan(mounts=(Mount(source=str(tmp_path), target="/models/m"),)))
    mount = docker_spec.create_arguments(wanted)["mounts"][-1]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == (str(tmp_path), "/models/m", True)
    assert f"{tmp_path}:/models/m:ro" in docker_spec.by_hand(wanted)
    with pytest.raises(LaunchFailed) as failed:
        spec(plan(mounts=(Mount(source=str(tmp_path / "gone"), target="/models/m"),)))
    assert failed.value.cause_id == "model-folder-missing"


def test_the_hub_cache_is_written_to_only_where_something_may_be_downloaded(tmp_path: Path) -> None:
    offline = spec(hub_cache=tmp_path)
    assert [bind.read_only for bind in offline.binds] == [True]
    online = LaunchPlan(argv=(), env={}, served_model="m", image="i")
    wanted = spec(online, hub_cache=tmp_path, secrets={"HF_TOKEN": "hf_secret"})
    assert [bind.read_only for bind in wanted.binds] == [False]
    assert wanted.env["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in docker_spec.by_hand(wanted)
    assert "-e HF_TOKEN" in docker_spec.by_hand(wanted)
    folder = spec(plan(mounts=(Mount(source=str(tmp_path), target="/models/m"),)), hub_cache=tmp_path)
    assert len(folder.binds) == 1


def test_compile_caches_live_in_a_volume_per_image() -> None:
    assert spec().cache_volume == "sweeper-cache-abababababab"
    image = ImageFacts(name="n", id="sha256:1", digest=None, user="1000:0")
    other = docker_spec.build(plan(), image, port=1, gpus=(), labels={}, hub_cache=None, cdi=False, secrets={})
    assert other.cache_volume is None, "an image that runs as somebody else has another home"


def test_an_empty_entry_point_is_one_empty_word() -> None:
    wanted = spec(LaunchPlan(argv=("serve",), env={}, served_model="m", image="i", entrypoint=()))
    assert docker_spec.create_arguments(wanted)["entrypoint"] == [""]
    assert "--entrypoint ''" in docker_spec.by_hand(wanted)


def test_a_broken_log_stream_is_taken_up_without_loss_or_repetition(tmp_path: Path) -> None:
    whole = b"".join(b"line %d\n" % number for number in range(1000))
    cuts = iter([100, 100, 4321, None])
    running = iter([True, True, True, False])

    def stream() -> Iterator[bytes]:
        end = next(cuts)
        for place in range(0, len(whole[:end]), 77):
            yield whole[:end][place : place + 77]
        if end is not None:
            raise OSError(errno.ECONNRESET, "reset")

    follower = LogFollower(tmp_path / "s.log", stream, lambda: next(running), retry_s=0.0)
    follower.start()
    assert follower.finish(5.0)
    assert (tmp_path / "s.log").read_bytes() == whole
    assert follower.problem is None


def test_a_log_that_does_not_end_is_a_known_gap(tmp_path: Path) -> None:
    def stream() -> Iterator[bytes]:
        yield b"x"
        raise OSError("gone")

    follower = LogFollower(tmp_path / "s.log", stream, lambda: True, retry_s=0.01)
    follower.start()
    assert not follower.finish(0.05)
    assert "did not end" in (follower.problem or "")


def test_a_full_disk_ends_the_copying_and_is_said() -> None:
    follower = LogFollower(Path("/dev/full"), lambda: iter([b"x"]), lambda: True, retry_s=0.0)
    follower.start()
    until(lambda: follower.ended)
    assert "no space left" in (follower.problem or "")


def test_unknown_words_are_kept_in_the_message() -> None:
    assert "odd words" in refused("odd\n words", "start it").message


def test_launchers_are_found_by_name() -> None:
    assert [registry.make(name).name for name in LAUNCHERS] == list(LAUNCHERS)
    with pytest.raises(Exception, match="no launcher 'podman'"):
        registry.make("podman")
