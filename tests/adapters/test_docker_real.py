"""Against a running Docker engine. The image: any with Python 3, `SWEEPER_TEST_IMAGE` or the local Debian."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from sweeper.core.errors import LaunchFailed
from sweeper.core.values import LaunchPlan, Mount
from sweeper.launchers.cleanup import remove_left
from sweeper.launchers.docker import DockerHandle, DockerLauncher
from sweeper.launchers.docker_client import connect
from sweeper.launchers.labels import LABEL_RUN

pytestmark = pytest.mark.docker

IMAGE = os.environ.get("SWEEPER_TEST_IMAGE", "sweeper-debian:local")
RUN = f"test-docker-{os.getpid()}"


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return value


def ours(client: Any) -> list[Any]:
    return list(client.containers.list(all=True, filters={"label": f"{LABEL_RUN}={RUN}"}))


@pytest.fixture(scope="module")
def engine() -> Any:
    try:
        client = connect()
        client.images.get(IMAGE)
    except (LaunchFailed, docker.errors.ImageNotFound) as why:
        pytest.skip(f"no Docker engine with {IMAGE}: {why}")
    return client


@pytest.fixture(autouse=True)
def _nothing_left(engine: Any) -> Iterator[None]:
    yield
    left = ours(engine)
    for container in left:
        container.remove(force=True)
    assert left == []


def answers(url: str) -> bool:
    """Docker's proxy accepts connections before the server listens, and resets them."""
    try:
        return bool(urllib.request.urlopen(url, timeout=2).status == 200)
    except OSError:
        return False


def plan(program: str, **more: Any) -> LaunchPlan:
    return LaunchPlan(
        argv=("-u", "-c", program, "{port}", "{host}"),
        env={"A": "b c", "HF_HUB_OFFLINE": "1"},
        served_model="m",
        image=IMAGE,
        entrypoint=("python3",),
        **more,
    )


def start(wanted: LaunchPlan, log: Path, **kwargs: Any) -> DockerHandle:
    return DockerLauncher(**kwargs).start(wanted, log_path=log, run_id=RUN, trial="one", gpus=())


SERVE = (
    "import http.server, sys\n"
    "print('serving', flush=True)\n"
    "http.server.HTTPServer((sys.argv[2], int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def test_the_server_answers_on_loopback_only_and_nothing_is_left_after_the_block(engine: Any, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with start(plan(SERVE), log) as server:
        until(lambda: "serving" in log.read_text())
        until(lambda: answers(server.record.base_url))
        published = engine.containers.get(server.record.container_id).attrs["NetworkSettings"]["Ports"]["8000/tcp"]
        assert {entry["HostIp"] for entry in published} == {"127.0.0.1"}
        assert server.poll() is None
    assert ours(engine) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.record.port)) != 0


def test_the_log_holds_both_streams_as_they_were_written(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    program = (
        "import os; os.write(1, b'first\\xff\\r\\n'); os.write(1, b'x' * 40000 + b'\\n'); os.write(2, b'err, no end')"
    )
    with start(plan(program), log) as server:
        until(server.poll)
    data = log.read_bytes()
    # The two streams are two pipes: their order among each other is the engine's.
    assert sorted(data.replace(b"err, no end", b"").split(b"\n")) == sorted(
        ["first\ufffd\r".encode(), b"x" * 40000, b""]
    )
    assert b"err, no end" in data


def test_an_exit_is_noticed_within_a_second(tmp_path: Path) -> None:
    with start(plan("raise SystemExit(7)"), tmp_path / "s.log") as server:
        ended = until(server.poll)
        assert (ended.code, ended.oom_killed, ended.stopped_by_us) == (7, False, False)
        assert server.post_mortem()["exit_code"] == 7


def test_the_stop_ladder_ends_a_server_that_ignores_sigterm(tmp_path: Path) -> None:
    log = tmp_path / "s.log"
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(99)"
    server = start(plan(program), log)
    until(lambda: "up" in log.read_text())
    ended = server.stop(1.0)
    assert (ended.code, ended.how, ended.stopped_by_us) == (137, "SIGKILL", True)
    assert server.stop(1.0) == ended


def test_a_server_that_dies_of_memory_carries_the_flag(engine: Any, tmp_path: Path) -> None:
    server = start(plan("import time; time.sleep(2); x = bytearray(1 << 30); time.sleep(9)"), tmp_path / "s.log")
    with server:
        engine.containers.get(server.record.container_id).update(mem_limit="64m", memswap_limit="64m")
        ended = until(server.poll)
    assert ended.oom_killed
    assert ended.code == 137


def test_a_folder_is_mounted_read_only(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    program = "print(open('/models/m/config.json').read()); open('/models/m/new', 'w')"
    wanted = plan(program, mounts=(Mount(source=str(tmp_path / "model"), target="/models/m"),))
    log = tmp_path / "s.log"
    with start(wanted, log) as server:
        until(server.poll)
    assert "{}" in log.read_text()
    assert "Read-only file system" in log.read_text()


def test_the_line_by_hand_does_the_same(tmp_path: Path) -> None:
    log = tmp_path / "s.log"
    with start(plan("import os, sys; print(os.environ['A'], sys.argv[1:])"), log) as server:
        until(server.poll)
    said = subprocess.run(server.record.by_hand, shell=True, capture_output=True, text=True, check=True).stdout
    assert said == log.read_text() == "b c ['8000', '0.0.0.0']\n"


def test_the_record_holds_what_the_image_is(engine: Any, tmp_path: Path) -> None:
    with start(plan("pass"), tmp_path / "s.log") as server:
        assert server.record.image == IMAGE
        assert "sha256:" in (server.record.image_digest or "")


def test_an_image_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="no-such-image-of-ours:9") as failed:
        start(replace(plan("pass"), image="localhost:9/no-such-image-of-ours:9"), tmp_path / "s.log")
    assert failed.value.cause_id == "image-not-found"


def test_gpus_without_the_nvidia_runtime_are_named_and_leave_no_container(engine: Any, tmp_path: Path) -> None:
    if "nvidia" in engine.info()["Runtimes"]:
        pytest.skip("this engine has the NVIDIA runtime")
    with pytest.raises(LaunchFailed) as failed:
        start(plan("pass", gpus=1), tmp_path / "s.log")
    assert failed.value.cause_id == "docker-no-gpu-runtime"
    assert "nvidia-ctk" in (failed.value.hint or "")


def test_a_program_that_is_not_in_the_image_ends_at_once_and_is_named_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "s.log"
    with start(replace(plan("pass"), entrypoint=("no-such-program",)), log) as server:
        ended = until(server.poll)
    assert ended.code == 127
    assert "no-such-program" in log.read_text()


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(LaunchFailed, match=str(port)) as failed:
            start(plan("pass"), tmp_path / "s.log", port=port)
    assert failed.value.cause_id == "port-in-use"


def test_a_container_removed_behind_our_back_is_an_exit(engine: Any, tmp_path: Path) -> None:
    with start(plan("import time; time.sleep(99)"), tmp_path / "s.log") as server:
        engine.containers.get(server.record.container_id).remove(force=True)
        ended = until(server.poll)
    assert ended.code is None or ended.code == 137


def test_a_container_of_a_living_controller_is_left_alone(engine: Any, tmp_path: Path) -> None:
    with start(plan("import time; time.sleep(99)"), tmp_path / "s.log") as server:
        assert [item.live for item in remove_left(RUN).kept] == [True]
        assert server.poll() is None


def test_a_container_left_by_a_killed_controller_is_removed_by_its_labels(engine: Any, tmp_path: Path) -> None:
    program = (
        "import os; from pathlib import Path; from sweeper.core.values import LaunchPlan\n"
        "from sweeper.launchers.docker import DockerLauncher\n"
        "plan = LaunchPlan(argv=('-c', 'import time; time.sleep(99)'), env={}, served_model='m',"
        f" image={IMAGE!r}, entrypoint=('python3',))\n"
        f"log = Path({str(tmp_path / 'x.log')!r})\n"
        f"DockerLauncher().start(plan, log_path=log, run_id={RUN!r}, trial='t', gpus=())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert [container.status for container in ours(engine)] == ["running"]
    would = remove_left(RUN, dry_run=True)
    assert [(item.kind, item.trial, item.live) for item in would.removed] == [("container", "t", False)]
    assert would.removed[0].ports
    assert remove_left(RUN).failed == ()
    assert ours(engine) == []
    assert remove_left(RUN).removed == ()
