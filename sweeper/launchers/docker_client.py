"""The connection to a Docker engine, where the user's own `docker` command would find it."""

from __future__ import annotations

import os
from typing import Any

import docker
from docker.context import ContextAPI
from docker.errors import DockerException
from requests.exceptions import RequestException

from sweeper.launchers.docker_errors import not_running

DEFAULT = "unix:///var/run/docker.sock"
FAILURES = (DockerException, RequestException, OSError)
"""What a call through the SDK may raise when the engine refuses or is gone."""


def address() -> str:
    """DOCKER_HOST, else the current `docker context` (rootless and desktop engines live there), else the socket."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    try:
        context = ContextAPI.get_current_context()
        return str(context.Host) if context and context.Host else DEFAULT
    except Exception:
        # A context file that somebody else's version wrote must not keep the default from working.
        return DEFAULT


def connect(*, timeout_s: float | None = 120.0) -> Any:
    """A client whose engine has answered; None waits for ever (to follow a log).

    Raises LaunchFailed(docker-not-running).
    """
    where = address()
    try:
        if os.environ.get("DOCKER_HOST"):
            client = docker.from_env(timeout=timeout_s)  # type: ignore[arg-type]
        else:
            client = docker.DockerClient(base_url=where, timeout=timeout_s)  # type: ignore[arg-type]
        client.ping()
    except FAILURES as err:
        raise not_running(f"{type(err).__name__}: {err}", where) from None
    return client


def explain(err: BaseException) -> str:
    """Docker's own sentence, without the SDK's URL in front."""
    return str(getattr(err, "explanation", None) or err)
