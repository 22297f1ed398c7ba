"""Constants of known GPUs and links, from data/hardware/boards.json; what a matrix declares goes before them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from sweeper.core.roofline import Board
from sweeper.core.values import Hardware

_FIELDS = "name bandwidth_gb_s bf16_tflops fp8_tflops fp4_tflops l2_mib memory_gib power_limit_w sm link".split()


@cache
def _data() -> dict[str, Any]:
    text = (resources.files("sweeper.data") / "hardware" / "boards.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def names() -> tuple[str, ...]:
    """Boards with constants."""
    return tuple(board["name"] for board in _data()["boards"])


def board(name: str | None, *, link: str | None = None) -> Board | None:
    """Constants of a board by NVML's name or a short one; None when it is not known.

    The longest pattern found in the name decides. `link` replaces the board's usual one: pcie5, pcie4, nvlink, none.
    """
    if not name:
        return None
    words = re.sub(r"[^a-z0-9.-]+", " ", name.lower())
    hits = [
        (len(pattern), entry)
        for entry in _data()["boards"]
        for pattern in entry["match"]
        if _holds(words, pattern) and not any(_holds(words, other) for other in entry["not_match"])
    ]
    if not hits:
        return None
    entry = max(hits, key=lambda hit: hit[0])[1]
    made = Board(**{key: entry.get(key) for key in _FIELDS}, sources=tuple(entry["sources"]))
    return with_link(made, link or made.link)


def _holds(words: str, pattern: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(pattern)}(?![a-z0-9])", words) is not None


def with_link(known: Board, link: str | None) -> Board:
    """The board on another link; an unknown link costs nothing, which makes the limit higher, never lower."""
    entry = _data()["links"].get(link or "")
    if entry is None:
        return replace(known, link=link, link_gb_s=None, alpha_us=0.0)
    sources = (*known.sources, entry["source"])
    return replace(known, link=link, link_gb_s=entry["link_gb_s"], alpha_us=entry["alpha_us"], sources=sources)


def board_of(hardware: Hardware) -> Board | None:
    """Constants for a declared machine: its own figures where it gives them. None without a bandwidth."""
    known = board(hardware.gpu, link=hardware.link)
    if known is None:
        if hardware.bandwidth_gb_s is None:
            return None
        known = with_link(Board(name=hardware.gpu or "GPU", bandwidth_gb_s=hardware.bandwidth_gb_s), hardware.link)
        return replace(known, memory_gib=hardware.memory_gib, power_limit_w=hardware.power_limit_w, sm=hardware.sm)
    return replace(
        known,
        bandwidth_gb_s=hardware.bandwidth_gb_s or known.bandwidth_gb_s,
        memory_gib=hardware.memory_gib or known.memory_gib,
        power_limit_w=hardware.power_limit_w or known.power_limit_w,
    )
