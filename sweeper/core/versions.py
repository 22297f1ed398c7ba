"""Engine versions as comparable tuples."""

from __future__ import annotations

import re

NEWEST_VLLM = "0.33.0"
NEWEST_SGLANG = "0.5.23"

Version = tuple[int, ...]


def parse(text: str | None, default: str = NEWEST_VLLM) -> Version:
    """`"v0.17.1rc0+cu130"` -> (0, 17, 1). Text without a leading number counts as `default`."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", (text or "").strip())
    return tuple(int(part) for part in (found.group(1) if found else default).split("."))


def written(version: Version) -> str:
    return ".".join(str(part) for part in version)
