from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sweeper.core.errors import LaunchFailed
from sweeper.core.values import LaunchPlan
from sweeper.launchers import attach
from sweeper.launchers.attach import AttachHandle, AttachLauncher


def start(url: str | None) -> AttachHandle:
    plan = LaunchPlan(argv=(), env={}, served_model="m", url=url)
    return AttachLauncher().start(plan, log_path=Path("unused"), run_id="r", trial="t", gpus=())


def listening() -> tuple[socket.socket, str]:
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_running_server_is_taken_and_left_running() -> None:
    server, url = listening()
    with server:
        with start(url + "/") as handle:
            assert handle.record.base_url == url
            assert handle.poll() is None
        for spelled in ("/v1", "/v1/"):
            assert start(url + spelled).record.base_url == url, "as clients of the API write it"
        assert handle.stop(1.0).how == "left running (attach)"
        assert handle.post_mortem()["listening"] is True


def test_a_server_that_goes_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "_ASK_EVERY_S", 0.0)
    server, url = listening()
    handle = start(url)
    server.close()
    ended = handle.poll()
    assert ended is not None
    assert "refuses connections" in ended.how
    assert not ended.stopped_by_us


def test_an_address_where_nothing_listens_is_refused() -> None:
    server, url = listening()
    server.close()
    with pytest.raises(LaunchFailed, match="nothing listens at") as failed:
        start(url)
    assert failed.value.cause_id == "server-unreachable"


@pytest.mark.parametrize("url", [None, "", "localhost:8000", "http://", "http://h:99999999"])
def test_a_malformed_address_says_how_to_write_it(url: str | None) -> None:
    with pytest.raises(LaunchFailed) as failed:
        start(url)
    assert "http://127.0.0.1:8000" in (failed.value.hint or "")
