"""`sweeper diagnose container:NAME` on real containers, ours or not: running, ended, killed, mute."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from sweeper.cli.main import main
from sweeper.core.errors import LaunchFailed
from sweeper.launchers.docker_client import connect

pytestmark = pytest.mark.docker

IMAGE = os.environ.get("SWEEPER_TEST_IMAGE", "sweeper-debian:local")
LABEL = "sweeper-test-diagnose"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 95 GiB"


@pytest.fixture
def engine() -> Iterator[Any]:
    try:
        client = connect()
        client.images.get(IMAGE)
    except (LaunchFailed, docker.errors.ImageNotFound) as why:
        pytest.skip(f"no Docker engine with {IMAGE}: {why}")
    yield client
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}={os.getpid()}"}):
        container.remove(force=True)
    client.close()


def box(engine: Any, script: str, **more: Any) -> Any:
    return engine.containers.create(IMAGE, ["bash", "-c", script], labels={LABEL: str(os.getpid())}, **more)


def told(container: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["diagnose", f"container:{container.name}", "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out)


def test_a_running_container_is_read_as_far_as_it_is(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    running = box(engine, f"echo one; echo '{OOM}' >&2; sleep 60")
    running.start()
    deadline = time.monotonic() + 10
    while b"capacity" not in running.logs() and time.monotonic() < deadline:
        time.sleep(0.05)
    code, found = told(running, capsys)
    assert (code, found["verdict"], found["cause"]["id"]) == (1, "fatal", "cuda-oom-weights")
    assert found["lines"] == 2
    running.reload()
    assert running.status == "running", "it is asked, never stopped"


def test_an_ended_container_brings_its_exit_code(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ended = box(engine, "echo first; printf 'the last words'; exit 3", tty=True)
    ended.start()
    ended.wait(timeout=20)
    code, found = told(ended, capsys)
    assert (code, found["verdict"], found["cause"]["line"]) == (1, "unknown-exit", "the last words")
    assert "with code 3" in found["cause"]["means"]


def test_what_only_docker_knows_is_part_of_the_answer(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    killed = box(engine, "printf start; x=$(head -c 100000000 /dev/zero | tr '\\0' a); echo $x | wc", mem_limit="40m")
    killed.start()
    killed.wait(timeout=30)
    killed.reload()
    if not killed.attrs["State"]["OOMKilled"]:
        pytest.skip("this engine has no memory limits")
    code, found = told(killed, capsys)
    assert (code, found["cause"]["id"], found["cause"]["line_no"]) == (1, "host-oom-kill", 2)


def test_a_container_without_a_readable_log_or_a_name_is_one_sentence(
    engine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mute = box(engine, "echo hello", log_config=docker.types.LogConfig(type="none"))
    mute.start()
    mute.wait(timeout=20)
    for name, words in ((mute.name, "does not support reading"), ("no-such-box", "no container named"), ("", "a name")):
        assert main(["diagnose", f"container:{name}"]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert "http+docker" not in said
