"""Can this cell run at all? Rules over a cell, the model's shape, the machine and the engine's version.

A rule that is certain excludes; one that is not warns and lets the cell run. Every reason names where it is known from.
An engine on CPUs is never excluded for what its kernels are: it answers for itself, in seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from sweeper.core import families, memory, rules_sglang, rules_vllm
from sweeper.core.arguments import flag_in, runs_on_cpu, value_of
from sweeper.core.geometry import Geometry
from sweeper.core.rules import Case, Reason, no, perhaps
from sweeper.core.values import Cell, Hardware
from sweeper.core.versions import NEWEST_SGLANG, NEWEST_VLLM, Version, parse, written


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """`excluded`: reasons for which the cell will not run; empty: it may. `warnings`: what may go wrong."""

    excluded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Rule = Callable[[Case], Iterable[Reason]]


def check_cell(
    cell: Cell, geometry: Geometry | None, hardware: Hardware, engine_version: str | None = None
) -> Feasibility:
    """All rules that apply. Without a geometry, rules about the model's shape stay silent."""
    newest = {"sglang": NEWEST_SGLANG, "vllm": NEWEST_VLLM}.get(cell.engine, "0")
    told = None if _produced(cell) else families.family(cell.quantization)
    read = _read_format(told, cell, geometry)
    case = Case(
        cell=cell,
        geometry=geometry,
        hardware=hardware,
        version=parse(engine_version or cell.engine_version, newest),
        format=families.table(read),
        family=read,
        cpu=hardware.count == 0 or runs_on_cpu(cell),
    )
    found = [reason for rule in _GENERIC for reason in rule(case)]
    by_version = [reason for rule in _BY_ENGINE.get(cell.engine, ()) for reason in rule(case)]
    read_version = _version_was_read(cell, engine_version, case.version)
    found += [replace(reason, certain=reason.certain and read_version) for reason in by_version]
    certain = [reason.text for reason in found if reason.certain]
    doubtful = [reason.text for reason in found if not reason.certain]
    return Feasibility(excluded=tuple(dict.fromkeys(certain)), warnings=tuple(dict.fromkeys(doubtful)))


def _produced(cell: Cell) -> bool:
    """Whether `quantization` names the tool that wrote the checkpoint, which writes several formats."""
    return (cell.quantization or "").strip().lower().replace("_", "-") in ("modelopt", "compressed-tensors")


def _online(cell: Cell) -> str | None:
    """What the engine is told to make of the checkpoint's weights while it loads them."""
    return cell.quantization_flag or value_of(cell.extra_args, "--quantization", "-q")


def _read_format(told: str | None, cell: Cell, geometry: Geometry | None) -> str | None:
    """The format as told; where the checkpoint's config says it more exactly (fp8: fp8-dynamic), as that says.

    None for 16-bit weights that --quantization changes on the way in: the experts are then no longer bf16, and what
    they become is the engine's to say.
    """
    read = geometry.quantization if geometry else None
    if told in (None, "bf16") and read is None and _online(cell):
        return None
    return read if told is None or (read and families.table(read) == told) else told


def _version_was_read(cell: Cell, told: str | None, version: Version) -> bool:
    """Whether the rules were read in wheels that include this version: an unknown or newer one may accept more."""
    if cell.engine not in _KNOWN_VERSIONS:
        return True
    text = told or cell.engine_version
    if text is None:
        return cell.image is None and cell.python is None
    return bool(re.match(r"v?\d", text)) and version[:3] <= parse(_KNOWN_VERSIONS[cell.engine][1])[:3]


def _gpus(case: Case) -> Iterator[Reason]:
    count, world = case.hardware.count, case.cell.parallelism.world_size
    if case.cpu or count is None or case.cell.url:
        return
    if world > count:
        shared = case.cell.engine == "sglang" and flag_in(case.cell.extra_args, "--enable-dp-attention")
        hint = "; attention's dp lies inside tp: give it as --dp-size in extra_args" if shared else ""
        yield no(f"needs {world} GPUs (tp x pp x dp), the machine has {count}{hint}", "the matrix's hardware")


def _layers(case: Case) -> Iterator[Reason]:
    shape, pp = case.geometry, case.cell.parallelism.pp
    if shape and pp > shape.layers and case.cell.engine in _BY_ENGINE:
        yield no(f"pp={pp} and only {shape.layers} layers", "one stage holds at least one layer")


def _heads(case: Case) -> Iterator[Reason]:
    shape, tp = case.geometry, case.cell.parallelism.tp
    if shape is None or tp == 1 or case.cell.engine not in _BY_ENGINE:
        return
    if shape.heads % tp:
        yield no(
            f"{shape.heads} attention heads do not divide by tp={tp}",
            "vllm/config/model.py verify_with_parallel_config",
        )
    elif not shape.is_mla and shape.kv_heads % tp and tp % shape.kv_heads:
        yield no(
            f"{shape.kv_heads} KV heads neither divide by tp={tp} nor can they be replicated evenly",
            "QKVParallelLinear in vllm/model_executor/layers/linear.py",
        )
    if shape.linear_layers() and (shape.linear_value_heads % tp or shape.linear_key_heads % tp):
        yield perhaps(
            f"{shape.linear_key_heads} key and {shape.linear_value_heads} value heads of the linear-attention layers "
            f"do not divide by tp={tp}",
            "the delta-net projections are sharded by head",
        )


_SLICE_BLOCK = {"fp8-block": 128, "nvfp4": 16, "nvfp4-w4a16": 16, "mxfp4": 32, "mxfp8": 32}


def _experts(case: Case) -> Iterator[Reason]:
    shape, p = case.geometry, case.cell.parallelism
    if shape is None or case.cell.engine not in _BY_ENGINE:
        return
    if not shape.is_moe:
        if p.ep > 1:
            yield no(f"ep={p.ep} and the model has no experts", "vllm/config/model.py verify_with_parallel_config")
        return
    ranks = memory.expert_ranks(case.cell, p.tp)
    if p.ep > 1:
        if shape.experts % p.ep:
            yield perhaps(
                f"{shape.experts} experts on {p.ep} ranks: the fullest rank holds one more than the others",
                "determine_expert_map in vllm/model_executor/layers/fused_moe",
            )
        return
    if shape.moe_intermediate % ranks:
        yield no(
            f"expert width {shape.moe_intermediate} does not divide by {ranks} ranks (tp x dp)",
            "vllm/model_executor/layers/fused_moe/config.py",
        )
        return
    each = shape.moe_intermediate // ranks
    block = shape.block[0] if shape.block and case.family == "fp8-block" else _SLICE_BLOCK.get(case.family or "", 1)
    if each % block:
        yield perhaps(
            f"a rank's slice of an expert is {each} wide, not a multiple of the {case.family} block of {block}: "
            "newer versions pad it, older ones stop",
            "vllm/model_executor/layers/quantization/fp8.py; fused_moe/oracle/fp8.py refines the block",
        )


def _memory(case: Case) -> Iterator[Reason]:
    """Weights alone must fit the card; the whole estimate only warns, and so does a size that nobody told for sure."""
    shape, gib = case.geometry, case.hardware.memory_gib
    if shape is None or gib is None or case.cpu or case.cell.engine not in _BY_ENGINE:
        return
    fit = memory.fit(case.cell, shape, case.hardware, ())
    weights = fit.parts["weights"] / memory.GIB
    if weights > gib:
        world = case.cell.parallelism.world_size
        doubt = _size_doubt(case.cell, shape)
        text = (
            f"weights need {weights:.1f} GiB per rank on {world} GPU{'s' if world > 1 else ''} "
            f"and each has {gib:g} GiB; {fit.knob} would hold them"
        )
        where = "the files on this disk" if shape.stored_bytes else "from the model's config"
        source = f"{fit.checkpoint_bytes / 1e9:.0f} GB in {case.family or 'bf16'}, {where}"
        yield perhaps(f"{text}, unless {doubt}", source) if doubt else no(text, source)
    elif fit.fits is False:
        yield perhaps(f"memory looks too small: {fit.summary()}; {fit.knob} would fit", "estimate from the geometry")


def _size_doubt(cell: Cell, shape: Geometry) -> str | None:
    """Why the estimated weights of a rank may be more than the GPU will hold; None: they are certain."""
    if any("offload" in word or word.startswith("--kt-") for word in cell.extra_args):
        return "what is offloaded to the CPU is enough"
    if shape.stored_bytes is None and (_produced(cell) or not memory.size_known(cell.quantization, shape)):
        name = cell.quantization or shape.quantization
        return f"{name} is smaller: it is no format whose size is known here"
    if cell.quantization is None and shape.quantization is None and (online := _online(cell)):
        return f"--quantization {online} shrinks them while they are read"
    return None


def _declared(case: Case) -> Iterator[Reason]:
    """Words that rules go by and that mean nothing to them: a typo would silence the rules without a trace."""
    cell = case.cell
    if cell.engine not in _KNOWN_VERSIONS:
        return
    oldest, newest = _KNOWN_VERSIONS[cell.engine]
    if cell.engine_version is not None and not re.match(r"v?\d", cell.engine_version):
        yield perhaps(f"engine_version '{cell.engine_version}' is no number: rules are those of {newest}", "the matrix")
    elif not parse(oldest)[:2] <= case.version[:2] <= parse(newest)[:2]:
        yield perhaps(f"{cell.engine} {written(case.version)}: rules are known from {oldest} to {newest}", "the matrix")
    if cell.quantization is not None and families.family(cell.quantization) not in families.KNOWN:
        near = difflib.get_close_matches(cell.quantization.lower(), families.KNOWN, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ":"
        text = (
            f"quantization '{cell.quantization}' is no family known here{meant} rules about number formats are silent"
        )
        yield perhaps(text, f"known: {', '.join(families.KNOWN)}")


def _port(case: Case) -> Iterator[Reason]:
    cell = case.cell
    if cell.engine != "command" or cell.url or not cell.command:
        return
    if not any("{port}" in word for word in (*cell.command, *cell.extra_args, *(value for _, value in cell.env))):
        yield perhaps(
            "`command` has no {port}: the server would have to guess where it is looked for",
            "each launch has its own port",
        )


_KNOWN_VERSIONS = {"vllm": ("0.9.0", NEWEST_VLLM), "sglang": ("0.5.0", NEWEST_SGLANG)}
_GENERIC: tuple[Rule, ...] = (_declared, _port, _gpus, _layers, _heads, _experts, _memory)
_BY_ENGINE: dict[str, tuple[Rule, ...]] = {"vllm": rules_vllm.RULES, "sglang": rules_sglang.RULES}
