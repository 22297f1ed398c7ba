"""Log lines -> what really ran. Absent stays None; the last word of an engine about itself wins over what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from sweeper.core.effective import BootPhase, EffectiveConfig
from sweeper.engines import names
from sweeper.engines.compare import compare_requested as compare_requested
from sweeper.engines.facts_other import RULES as OTHER_RULES
from sweeper.engines.facts_state import Facts, Rule
from sweeper.engines.facts_vllm import HOT
from sweeper.engines.facts_vllm import RULES as VLLM_RULES
from sweeper.engines.lines import clean

_RULES: tuple[Rule, ...] = (*HOT, *OTHER_RULES, *VLLM_RULES[len(HOT) :])
_PREFIXED = ("(", "[", "INFO", "WARN", "ERROR", "DEBUG")
_FIELDS = frozenset(item.name for item in fields(EffectiveConfig))

_STRETCHES = (
    ("start", "engine", "read config, start processes"),
    ("engine", "loaded", "start workers, load model"),
    ("loaded", "kv cache", "profile memory"),
    ("autotune", "autotuned", "autotune"),
    ("kv cache", "engine ready", "warm up"),
    ("engine ready", "server", "start server"),
    ("start", "server", "total"),
)
"""(from, to, name): stretches between milestones whose stamps are known."""

_DAY_S = 86400.0
_NEVER_TRITON = frozenset({"marlin", "cutlass", "flashinfer_cutlass", "flashinfer_trtllm", "flashinfer_cutedsl"})
"""Selections beside which a compiled `fused_moe_kernel` means that Triton took some of the calls."""
_DRAFTED_BY_A_MODEL = ("mtp", "eagle", "nextn", "draft", "standalone", "dflash", "dspark")


class FactReader:
    """Collects facts line by line.

    Lines that hold none of LITERALS need not be given. Lines may carry the engine's prefixes or not.
    """

    LITERALS: tuple[str, ...] = tuple(dict.fromkeys(item.literal for item in _RULES))

    def __init__(self) -> None:
        self._facts = Facts()

    def line(self, no: int, text: str, stamp_s: float | None = None) -> None:
        """`no` counts from 1; `stamp_s` in seconds of any clock that all lines of this log share."""
        facts = self._facts
        if text.startswith(_PREFIXED) or text[:4].isdigit():
            cleaned = clean(text)
            text, stamp_s = cleaned.text, cleaned.stamp_s if stamp_s is None else stamp_s
        facts.stamp_s = stamp_s
        for item in _RULES:
            if item.literal in text:
                found = item.pattern.search(text)
                if found:
                    item.apply(facts, found, no)
                    return

    def result(self) -> EffectiveConfig:
        """The facts so far; may be asked for at any time."""
        facts = self._facts
        values = {name: value for name, value in facts.values.items() if name in _FIELDS}
        evidence = {name: no for name, no in facts.evidence.items() if name in _FIELDS}
        for part in (_engine(facts), _moe(facts), _attention(facts), _parallel(facts), _tuning(facts)):
            for name, (value, line_no) in part.items():
                if name not in values:
                    values[name] = value
                    if line_no:
                        evidence.setdefault(name, line_no)
        return EffectiveConfig(
            **values,
            fallbacks=_fallbacks(facts),
            generation_tok_s=tuple(facts.rates),
            boot=_boot(facts),
            ready=facts.ready,
            evidence=evidence,
        )


def read_facts(lines: Iterable[str]) -> EffectiveConfig:
    """Facts of a whole log given as lines."""
    reader = FactReader()
    for number, text in enumerate(lines, 1):
        reader.line(number, text)
    return reader.result()


Part = dict[str, tuple[object, int | None]]


def _engine(facts: Facts) -> Part:
    if "_host_weights_gib" in facts.values and "weights_gib" not in facts.values:
        return {"weights_gib": (facts.values["_host_weights_gib"], facts.evidence["_host_weights_gib"])}
    if facts.moe and "engine" not in facts.values:
        return {"engine": ("vllm", facts.moe[0][2])}
    return {}


def _moe(facts: Facts) -> Part:
    """First selection: the target's. A second, different one belongs to the draft when a model drafts."""
    if not facts.moe:
        return {}
    raw, _, line_no = facts.moe[0]
    name = names.moe(raw)
    out: Part = {"moe_backend": (name, line_no), "moe_backend_raw": (raw, line_no)}
    ran, proof = _ran(facts, name)
    if ran is not None:
        out["moe_backend_ran"] = (ran, proof)
    method = str(facts.values.get("speculative_method", "")).lower()
    others = [item for item in facts.moe[1:] if facts.values.get("engine") != "sglang"]
    if others and any(word in method for word in _DRAFTED_BY_A_MODEL):
        out["draft_moe_backend"] = (names.moe(others[0][0]), others[0][2])
    return out


def _ran(facts: Facts, name: str) -> tuple[bool | None, int | None]:
    """Whether the selected kernel is known to have run.

    Proof is a line that only a call can print: Triton's compilation or tuning table, an operation that the autotuner
    timed. vLLM prints none for Marlin and its own CUTLASS; None stands there, whatever was selected. DeepGEMM and FP8
    CUTLASS are selections whose calls may go to Triton (TritonOrDeepGemmExperts, TritonOrCutlassExperts).
    """
    triton, compiled = facts.evidence.get("_triton_moe_ran"), facts.evidence.get("_fused_moe_kernel")
    if any(names.moe(raw) == "triton" for raw, _, _ in facts.moe[1:]):
        # A draft's Triton kernel says nothing about the target's.
        triton = compiled = triton if name == "triton" else None
    if name == "deep_gemm":
        off = facts.evidence.get("_deepgemm_off") or triton
        return (False, off) if off else (None, None)
    if name in ("triton", "emulation"):
        dequantised = name == "triton" or "_emulated" in facts.values
        return (True, triton) if triton and dequantised else (None, None)
    if name == "cpu":
        return True, facts.moe[0][2]
    if facts.values.get("_tuned_moe") == name:
        return True, facts.evidence["_tuned_moe"]
    return (False, compiled) if compiled and name in _NEVER_TRITON else (None, None)


def _attention(facts: Facts) -> Part:
    if not facts.attention:
        return {}
    out: Part = {"attention_backend": facts.attention[0]}
    method = str(facts.values.get("speculative_method", "")).lower()
    if len(facts.attention) > 1 and any(word in method for word in _DRAFTED_BY_A_MODEL):
        out["draft_attention_backend"] = facts.attention[1]
    return out


def _parallel(facts: Facts) -> Part:
    """Sizes from the ranks that showed up, where no configuration line gave them; experts off unless switched on."""
    out: Part = {}
    for name in ("tp", "pp", "dp"):
        rank = facts.values.get(f"_{name}_rank")
        if name not in facts.values and rank:
            out[name] = (rank + 1, facts.evidence[f"_{name}_rank"])
    if "ep" not in facts.values and facts.values.get("_expert_parallel") is False and "tp" in facts.values:
        out["ep"] = (1, facts.evidence["_expert_parallel"])
    return out


def _tuning(facts: Facts) -> Part:
    out: Part = {}
    if facts.skipped:
        out["autotune_skipped"] = (sum(facts.skipped.values()), facts.evidence["autotune_skipped"])
    elif facts.values.get("_autotuned"):
        out["autotune_skipped"] = (0, facts.evidence["_autotuned"])
    if facts.tuned:
        out["autotune_total"] = (sum(facts.tuned.values()), facts.evidence["autotune_skipped"])
    if facts.jit_watched:
        out["jit_in_run"] = (facts.jit_lines, facts.evidence.get("jit_in_run"))
    return out


def _fallbacks(facts: Facts) -> tuple[str, ...]:
    extra: list[str] = []
    if facts.moe and names.moe(facts.moe[0][0]) == "deep_gemm":
        if "_deepgemm_off" in facts.values:
            extra.append(f"DeepGEMM selected, Triton ran for some calls: {facts.values['_deepgemm_off']}")
        elif "_triton_moe_ran" in facts.values:
            extra.append("DeepGEMM selected, Triton's MoE kernel ran for some calls")
    return (*facts.fallbacks, *extra)


def _boot(facts: Facts) -> tuple[BootPhase, ...]:
    """Phases in order: from stamps where two milestones have one, else from durations that the text gives."""
    out: list[BootPhase] = []
    for begin, end, name in _STRETCHES:
        if begin not in facts.marks or end not in facts.marks:
            continue
        start_s, end_s = facts.marks[begin], facts.marks[end]
        known = start_s is not None and end_s is not None
        # Stamps are seconds of a day: a start over midnight wraps.
        seconds = round((end_s - start_s) % _DAY_S, 3) if start_s is not None and end_s is not None and known else None
        out.append(BootPhase(name=name, seconds=seconds))
    out += [BootPhase(name=name, seconds=seconds) for name, seconds in facts.durations.items()]
    return tuple(out)
