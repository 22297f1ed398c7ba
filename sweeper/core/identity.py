"""Which cell is it: 12 hex digits over the fields that change what is served.

Every field of Cell is classified here; a test fails on one that is not. Host paths in `model` and `python` count:
two environments on one machine are two cells. Defaults are left out of the hashed text, so a field added later
with a default keeps the ids of old runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from sweeper.core.values import Cell

IDENTITY_VERSION = 1
"""Stored with every run; raised when the same cell would get another id."""

IDENTITY = frozenset(
    {
        "engine",
        "model",
        "engine_version",
        "image",
        "python",
        "command",
        "url",
        "quantization",
        "quantization_flag",
        "moe_backend",
        "linear_backend",
        "attention_backend",
        "parallelism",
        "speculative",
        "env",
        "extra_args",
        "max_model_len",
        "gpu_memory_utilization",
    }
)
RUN_TIME = frozenset({"name", "launcher"})
"""How a cell is called and started: two launchers of one configuration are compared under one id."""


def canonical(cell: Cell) -> str:
    """The hashed text: JSON with sorted keys, no spaces, only the identity fields that differ from their default.

    Environment variables are sorted; the order of extra arguments counts, since a later argument can override.
    """
    data: dict[str, Any] = {"identity_version": IDENTITY_VERSION}
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.name in IDENTITY and value not in (None, ()) and value != field.default:
            data[field.name] = _plain(field.name, value)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def cell_id(cell: Cell) -> str:
    """The first 12 hex digits of the SHA-256 of `canonical(cell)`."""
    return hashlib.sha256(canonical(cell).encode()).hexdigest()[:12]


def _plain(name: str, value: Any) -> Any:
    if name in ("env", "speculative", "parallelism"):
        if name == "env":
            return dict(value)
        given = dataclasses.asdict(value)
        return {key: item for key, item in given.items() if item not in (None, ())}
    return value
