"""Images: there already, or pulled with progress; what exactly they are."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from docker.errors import ImageNotFound
from docker.utils import parse_repository_tag

from sweeper.core.errors import LaunchFailed
from sweeper.launchers.docker_client import FAILURES, explain
from sweeper.launchers.docker_errors import refused

_SAY_EVERY_S = 0.5
_SILENCE_S = 900.0
"""How long a pull may say nothing: some engines verify and unpack layers of 10 GB without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """One image of this machine."""

    name: str
    id: str
    """sha256 of its configuration."""
    digest: str | None
    """`name@sha256:...` of the registry; None for an image that never was in one."""
    user: str
    """As the image sets it; empty: root."""

    @property
    def proof(self) -> str:
        """What a record keeps: the registry's digest, the local id where there is none."""
        return self.digest or self.id

    @property
    def is_root(self) -> bool:
        return self.user.split(":")[0] in ("", "0", "root")


def ensure(client: Any, name: str, say: Callable[[str], None], *, pull_s: float = math.inf) -> ImageFacts:
    """The image's facts, after pulling it when it is not here, for at most `pull_s` seconds. Raises LaunchFailed."""
    try:
        return facts(name, client.images.get(name))
    except ImageNotFound:
        pull(client, name, say, pull_s=pull_s)
    except FAILURES as err:
        raise refused(explain(err), f"look up the image {name}") from None
    try:
        return facts(name, client.images.get(name))
    except FAILURES as err:
        raise refused(explain(err), f"find the image {name} after pulling it", otherwise="image-not-found") from None


def facts(name: str, image: Any) -> ImageFacts:
    repository = parse_repository_tag(name)[0]
    digests = [str(text) for text in image.attrs.get("RepoDigests") or ()]
    own = [text for text in digests if text.split("@")[0] == repository]
    config = image.attrs.get("Config") or {}
    return ImageFacts(
        name=name, id=str(image.id), digest=next(iter(own or digests), None), user=str(config.get("User") or "")
    )


def pull(client: Any, name: str, say: Callable[[str], None], *, pull_s: float = math.inf) -> None:
    """Pull, telling how far it is about twice a second. Raises LaunchFailed with the registry's words."""
    repository, tag = parse_repository_tag(name)
    say(f"pulling {name}")
    begun_s, usual = time.monotonic(), client.api.timeout
    client.api.timeout = min(_SILENCE_S, max(1.0, pull_s))
    try:
        events = client.api.pull(repository, tag=tag or "latest", stream=True, decode=True)
        _follow(events, name, say, begun_s + pull_s)
    except FAILURES as err:
        if time.monotonic() - begun_s >= pull_s:
            raise _late(name) from None
        raise refused(explain(err), f"pull {name}", otherwise="image-not-found") from None
    finally:
        client.api.timeout = usual
    say(f"pulled {name}")


def _follow(events: Iterable[Mapping[str, Any]], name: str, say: Callable[[str], None], until_s: float) -> None:
    layers: dict[str, tuple[int, int]] = {}
    said_s = time.monotonic()
    for event in events:
        if event.get("error"):
            raise _failed(name, str(event["error"]))
        if time.monotonic() >= until_s:
            raise _late(name)
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[str(event.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
        elif event.get("status") in ("Download complete", "Pull complete") and str(event.get("id")) in layers:
            total = layers[str(event.get("id"))][1]
            layers[str(event.get("id"))] = (total, total)
        if layers and time.monotonic() - said_s >= _SAY_EVERY_S:
            said_s = time.monotonic()
            say(f"pulling {name}: {progress(layers.values())}")


def progress(layers: Iterable[tuple[int, int]]) -> str:
    """`1.2 of 8.4 GB` over the layers whose size is known so far."""
    pairs = list(layers)
    done, total = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    return f"{done / 1e9:.1f} of {total / 1e9:.1f} GB"


def _failed(name: str, words: str) -> LaunchFailed:
    return refused(words, f"pull {name}", otherwise="image-not-found")


def _late(name: str) -> LaunchFailed:
    return LaunchFailed(
        "image-pull-timeout",
        f"the image {name} did not arrive within the sweep's time for it (deadlines.pull_s)",
        hint=f"fetch it first: docker pull {shlex.quote(name)}; or raise policy.deadlines.pull_s in the matrix",
    )
