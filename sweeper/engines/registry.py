"""The engines by name. A new engine is one line here."""

from __future__ import annotations

import difflib

from sweeper.core.errors import UsageError
from sweeper.core.ports import Engine
from sweeper.engines.command import CommandEngine
from sweeper.engines.sglang import SglangEngine
from sweeper.engines.transformers import TransformersEngine
from sweeper.engines.vllm import VllmEngine

_ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (VllmEngine(), SglangEngine(), TransformersEngine(), CommandEngine())
}


def names() -> tuple[str, ...]:
    return tuple(_ENGINES)


def get(name: str) -> Engine:
    """Raises UsageError naming the engines there are."""
    try:
        return _ENGINES[name]
    except KeyError:
        near = difflib.get_close_matches(name, _ENGINES, n=1)
        hint = f"did you mean {near[0]}?" if near else None
        raise UsageError(f"no engine called {name!r}; there are {', '.join(_ENGINES)}", hint=hint) from None
