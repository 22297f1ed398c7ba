"""The engine's own support matrix: which MoE backends a log rules out for its quantisation, device and layout.

vLLM walks its backends in order and says at DEBUG why each is not usable here; the same check decides when a backend is
asked for by name, so one launch of `auto` answers for the backends that it tried. A launch that was refused prints the
names that exist for its weights, which answers for the rest. Three cases in which `auto` and a name differ are kept
out: variants of one name (batched activations, MXFP4 activation formats), FP8 block scales that only `auto` refines,
and Humming (from 0.33 Marlin too), which unquantised layers ignore. Source: oracle/*.py and modular_kernel.py
(`is_supported_config`) in vllm/model_executor/layers/fused_moe of 0.24.0 and 0.32.0; lines seen on an H200 and on CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sweeper.core.canaries import Refusal
from sweeper.core.versions import Version, parse
from sweeper.engines import names
from sweeper.engines.lines import clean

DEBUG_ENV = (("VLLM_LOGGING_LEVEL", "DEBUG"), ("FLASHINFER_LOGGING_LEVEL", "debug"))
"""What makes vLLM and FlashInfer print their reasons."""

REASON_CHARS = 160
"""Some reasons end in the printed form of a whole configuration."""

NEVER = ("auto", "humming")
"""Names that a list of backends never rules out: unquantised layers take their own backend for them."""
MARLIN_TOO: Version = (0, 33)
"""From here on the same holds for marlin (vllm #56832: it was an error before)."""

_REJECTED = re.compile(
    r"(?P<family>\w+(?: Int8)?) MoE backend '?(?P<backend>[A-Za-z0-9_ ]+?)'? does not support the "
    r"deployment configuration(?: since (?P<reason>.+?))?\.?$"
)
_USED = re.compile(r"Using '?(?P<backend>[A-Za-z0-9_ ]+?)'? (?P<family>\w+(?: Int8)?) MoE backend")
_ONLY_CPU = re.compile(r"Using CPU Unquantized MoE backend out of potential backends: \['CPU'\]")
_CHOICES = re.compile(
    r"(?:moe_backend='?\w+'? is not supported for [\w ]+?\. Expected one of \[(?P<family>[^\]]*)\]"
    r"|argument --moe-backend: invalid choice: '?\w+'? \(choose from (?P<flag>[^)]*)\))"
)
_VERSION = re.compile(r"LLM engine \(v(?P<version>[\d.]+)")
_VARIANTS = ("FLASHINFER_TRTLLM", "FLASHINFER_CUTLASS", "B12X", "AITER")
"""MXFP4: one name, several activation formats, of which `auto` may have tried only some."""
_TWINS = frozenset({"cutlass", "deep_gemm", "flashinfer_cutedsl", "marlin", "triton"})
"""Names that stand for a BATCHED_ kernel where activations are batched by expert, for the plain one elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    raw: str
    family: str
    refusal: Refusal

    @property
    def batched(self) -> bool:
        return "BATCHED" in self.raw.upper()


@dataclass(slots=True)
class _Read:
    entries: list[_Entry] = field(default_factory=list)
    lists: list[Refusal] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    refined: bool = False
    version: Version | None = None

    @property
    def never(self) -> tuple[str, ...]:
        return NEVER if self.version and self.version < MARLIN_TOO else (*NEVER, "marlin")


def refusals(lines: Iterable[str]) -> tuple[Refusal, ...]:
    """What a log rules out, each backend once, in the order of the lines."""
    read = _Read()
    for number, raw in enumerate(lines, 1):
        if "LLM engine (v" in raw and (version := _VERSION.search(raw)):
            read.version = parse(version["version"])
        elif "MoE backend" in raw or "moe_backend" in raw or "--moe-backend" in raw:
            _take(read, clean(raw).text, number, raw.strip())
        elif "FP8 MoE block scales refined from" in raw:
            read.refined = True
    chosen = {names.moe(name) for name in read.chosen}
    found: dict[str, Refusal] = {}
    for entry in _conclusive(read):
        name = entry.refusal.backend or ""
        if name not in chosen:
            found.setdefault(name, entry.refusal)
    return (*found.values(), *read.lists[:1])


def refused(known: Sequence[Refusal], backend: str) -> Refusal | None:
    """The line that rules out a backend as the command line names it; None: nothing is known against it."""
    return next((refusal for refusal in known if refusal.covers(backend)), None)


def _take(read: _Read, text: str, number: int, line: str) -> None:
    hit = _REJECTED.search(text)
    if hit:
        reason = (hit["reason"] or "no reason given")[:REASON_CHARS]
        refusal = Refusal(backend=names.moe(hit["backend"]), reason=reason, line_no=number, line=line)
        read.entries.append(_Entry(raw=hit["backend"], family=hit["family"].lower(), refusal=refusal))
        return
    choices = _CHOICES.search(text)
    if choices:
        allowed = tuple(re.findall(r"[\w-]+", choices["family"] or choices["flag"] or ""))
        reason = f"for these weights it knows only {', '.join(allowed)}"
        read.lists.append(Refusal(but=(*allowed, *read.never), reason=reason, line_no=number, line=line))
        return
    used = _USED.search(text)
    if used:
        read.chosen.append(used["backend"])
    if _ONLY_CPU.search(text):
        reason = "on this device it knows only its CPU kernels"
        read.lists.append(Refusal(but=("cpu", *read.never), reason=reason, line_no=number, line=line))


def _conclusive(read: _Read) -> list[_Entry]:
    """Entries that hold for the name as well."""
    plain_has_wrong_format = any(_format(entry) and not entry.batched for entry in read.entries)
    batched = plain_has_wrong_format or any("BATCHED" in name.upper() for name in read.chosen)
    return [entry for entry in read.entries if not _open(entry, batched=batched, refined=read.refined)]


def _open(entry: _Entry, *, batched: bool, refined: bool) -> bool:
    """Whether the name may still work although this kernel was turned down."""
    if _format(entry) or (entry.refusal.backend in _TWINS and entry.batched != batched):
        return True
    if entry.family == "mxfp4" and entry.raw.upper().startswith(_VARIANTS):
        return True
    return refined and entry.family == "fp8" and "quantization scheme" in entry.refusal.reason


def _format(entry: _Entry) -> bool:
    return "activation format" in entry.refusal.reason
