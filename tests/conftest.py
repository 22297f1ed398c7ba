"""Fixtures for every part of the suite."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from servers.scripted import Script, ScriptedServer


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Start scripted servers: `server = scripted(rate=100, tokens_per_chunk=3)`; they stop with the test."""
    with ExitStack() as stack:

        def start(script: Script | None = None, **changes: object) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(script, **changes))

        yield start
