"""The engine's own support matrix, read off one launch of `auto` at debug level.

vLLM walks its backends in order and says at DEBUG why each is not usable here; what it rejects for a deployment it
also refuses when asked for by name. So one launch answers for all backends of one quantisation, device and layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sweeper.engines import names
from sweeper.engines.lines import clean

DEBUG_ENV = (("VLLM_LOGGING_LEVEL", "DEBUG"), ("FLASHINFER_LOGGING_LEVEL", "debug"))
"""What makes vLLM and FlashInfer print their reasons."""

LITERAL = "does not support the deployment configuration since"
_REJECTED = re.compile(r"MoE backend '?(?P<backend>[A-Za-z0-9_ ]+?)'? " + LITERAL + r" (?P<reason>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One backend that the engine says it cannot use, with the line that says so."""

    backend: str
    """As the command line names it."""
    reason: str
    line_no: int
    line: str


def rejected(lines: Iterable[str]) -> dict[str, Rejected]:
    """Command-line name -> rejection. A backend with several variants is rejected only if no variant was selected."""
    found: dict[str, Rejected] = {}
    chosen: set[str] = set()
    for number, raw in enumerate(lines, 1):
        if LITERAL in raw:
            hit = _REJECTED.search(clean(raw).text)
            if hit:
                backend = names.moe(hit["backend"])
                entry = Rejected(backend=backend, reason=hit["reason"].rstrip("."), line_no=number, line=raw.strip())
                found.setdefault(backend, entry)
        elif "MoE backend" in raw:
            used = re.search(r"Using '?(?P<backend>[A-Za-z0-9_ ]+?)'? \w+ MoE backend", clean(raw).text)
            if used:
                chosen.add(names.moe(used["backend"]))
    return {backend: entry for backend, entry in found.items() if backend not in chosen}
