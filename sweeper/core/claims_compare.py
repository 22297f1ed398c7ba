"""May this claim be held against that figure? The first condition that differs, what nobody stated, what was assumed.

A condition that one side does not state contradicts nothing. Where it could explain a factor by itself (model, GPU,
speculation, concurrency) it has to be asked for; otherwise it is a caveat.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sweeper.core.claims import NAMES, Claim, Conditions

DECISIVE = (
    "model", "quantization", "gpu", "gpus", "engine", "moe_backend", "tp", "pp", "ep", "speculative", "draft_tokens",
    "concurrency",
)  # fmt: skip
"""Unknown, they keep a verdict from being given."""
ALWAYS_ASKED = ("model", "quantization", "gpu", "gpus", "speculative", "concurrency")
"""Decisive ones that every published rate has, whether or not its author lists them as unknown."""
OUTCOMES = frozenset({"acceptance_length", "acceptance_rate"})
"""Results of a measurement rather than conditions of it."""

QUESTIONS = {
    "model": "which model?",
    "quantization": "in which quantisation?",
    "gpu": "on which GPU, and which edition?",
    "gpus": "on how many GPUs?",
    "engine": "with which engine?",
    "moe_backend": "with which MoE backend, and did the log confirm that it ran?",
    "tp": "at which tensor parallelism?",
    "pp": "at which pipeline parallelism?",
    "ep": "with or without expert parallelism?",
    "speculative": "with or without speculative decoding (MTP), and with how many drafts?",
    "draft_tokens": "with how many draft tokens a step?",
    "concurrency": "with how many streams at once, and is it the sum or one stream?",
    "isl": "with how long prompts?",
    "osl": "with how long answers?",
    "context": "at which context?",
    "engine_version": "which engine version?",
    "image": "which image or fork, by digest?",
    "thinking": "with thinking on or off?",
    "power_limit_w": "at which power limit?",
    "os": "on Linux or under WSL2?",
    "prefix_cache": "with or without prefix cache hits?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """`difference`: (condition, claimed, ours) of the first that differs; `missing`: decisive ones nobody knows."""

    difference: tuple[str, str, str] | None
    depth: int
    """How many conditions agree before the first difference; larger is closer."""
    unstated: tuple[str, ...]
    """Decisive conditions that the claim does not state."""
    unrecorded: tuple[str, ...]
    """Decisive conditions that the claim states and our figure does not record."""
    caveats: tuple[str, ...]


def fit(claim: Claim, ours: Conditions, *, recorded: bool = True) -> Fit:
    """How the claim's conditions relate to ours. `recorded` False: a cell without a figure has no workload."""
    theirs = claim.conditions
    caveats: list[str] = []
    unstated: list[str] = []
    unrecorded: list[str] = []
    difference: tuple[str, str, str] | None = None
    depth = 0
    for name in NAMES:
        a, b = getattr(theirs, name), getattr(ours, name)
        if name in OUTCOMES or name == "other":
            continue
        if name == "mig" and b:
            a = bool(a)
        if a is None:
            if name in DECISIVE and _asked(claim, name):
                unstated.append(name)
            elif name in claim.unknown:
                caveats.append(f"the source does not state {words(name)}")
        elif b is None:
            if name in DECISIVE and recorded:
                unrecorded.append(name)
            elif name != "preset" and recorded:
                caveats.append(f"{words(name)} {shown(a)} is not recorded on our side")
        elif difference is None and not same(name, a, b):
            difference = (name, shown(a), shown(b))
            depth = NAMES.index(name)
    if theirs.other:
        caveats.append(f"the source adds: {theirs.other}")
    return Fit(
        difference=difference,
        depth=depth if difference else len(NAMES),
        unstated=tuple(unstated),
        unrecorded=tuple(unrecorded),
        caveats=tuple(caveats),
    )


def _asked(claim: Claim, name: str) -> bool:
    if name == "draft_tokens":
        return claim.conditions.speculative not in (None, "none")
    return name in claim.unknown or (name in ALWAYS_ASKED and claim.kind != "score")


def words(name: str) -> str:
    """A condition's name for people."""
    special = {
        "gpu": "GPU", "gpus": "GPU count", "isl": "prompt length", "osl": "output length", "os": "operating system",
        "tp": "TP", "pp": "PP", "dp": "DP", "ep": "EP", "moe_backend": "MoE backend", "mig": "MIG",
        "speculative": "speculation", "draft_tokens": "draft tokens", "power_limit_w": "power limit", "p2p": "P2P",
        "kv_cache": "KV cache", "all_reduce": "all-reduce", "image": "image or fork", "preset": "protocol",
    }  # fmt: skip
    return special.get(name, name.replace("_", " "))


def shown(value: object) -> str:
    """A condition's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def same(name: str, claimed: object, ours: object) -> bool:
    """Whether two stated values are the same condition."""
    check = _CHECKS.get(name)
    if check is not None:
        return check(claimed, ours)
    if isinstance(claimed, str) and isinstance(ours, str):
        return _plain(claimed) == _plain(ours)
    return claimed == ours


def _plain(text: str) -> str:
    return text.lower().replace("-", "_").strip()


_LIMITED = frozenset({"max", "mobile", "laptop", "mig", "se", "nvl", "pcie", "d"})
"""Words of a board's name that make it another board: `max` stands for Max-Q."""


def _gpu(claimed: object, ours: object) -> bool:
    """The claim's words all stand in our board's name, and none that changes the board stands on one side only."""
    a, b = (set(re.findall(r"[a-z0-9]+", str(name).lower())) for name in (claimed, ours))
    a, b = a - {"nvidia", "geforce", "blackwell"}, b - {"nvidia", "geforce", "blackwell"}
    return a <= b and not (b - a) & _LIMITED


def _version(claimed: object, ours: object) -> bool:
    a, b = str(claimed), str(ours)
    return a == b or b.startswith(f"{a}.") or b.startswith(f"{a}+")


def _backend(claimed: object, ours: object) -> bool:
    """Ours may read `auto (marlin)`: asked for auto, ran marlin. `marlin (asked cutlass)` is marlin."""
    a, b = _plain(str(claimed)), _plain(str(ours))
    first, _, rest = b.partition(" (")
    ran = rest.removesuffix(")") if first == "auto" else first
    return a in (first, ran)


def _length(claimed: object, ours: object) -> bool:
    a, b = float(str(claimed)), float(str(ours))
    return abs(a - b) <= max(16.0, 0.05 * a)


def _about(claimed: object, ours: object) -> bool:
    a, b = float(str(claimed)), float(str(ours))
    return abs(a - b) <= 0.05 * a


def _context(claimed: object, ours: object) -> bool:
    a, b = float(str(claimed)), float(str(ours))
    return abs(a - b) <= max(1024.0, 0.1 * a)


def _image(claimed: object, ours: object) -> bool:
    a, b = _plain(str(claimed)), _plain(str(ours))
    return a in b or b in a


_QUANTIZATION = {"fp8_dynamic": "fp8", "fp8_block": "fp8", "nvfp4_w4a16": "nvfp4", "bnb_8bit": "int8"}


def _quantization(claimed: object, ours: object) -> bool:
    """`fp8` covers its variants when the claim does not say which."""
    a, b = _plain(str(claimed)), _plain(str(ours))
    return a == b or a == _QUANTIZATION.get(b)


def _speculative(claimed: object, ours: object) -> bool:
    """SGLang calls the model's own prediction layers NEXTN, vLLM calls them MTP."""
    a, b = ("mtp" if name == "nextn" else name for name in (str(claimed), str(ours)))
    return a == b


_CHECKS: dict[str, Callable[[object, object], bool]] = {
    "gpu": _gpu,
    "moe_backend": _backend,
    "engine_version": _version,
    "isl": _length,
    "osl": _length,
    "context": _context,
    "image": _image,
    "quantization": _quantization,
    "power_limit_w": _about,
    "speculative": _speculative,
}
