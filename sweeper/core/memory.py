"""Does a cell fit into the GPUs? Bytes per rank: weights, KV cache, prediction head, overhead.

Weights and KV follow from the geometry and the number format. Overhead is an estimate (CUDA context, NCCL, activations
of one prefill chunk, graph pools) and is printed as one; it decides only cells within about 2 GiB of the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sweeper.core import families
from sweeper.core.arguments import value_of
from sweeper.core.geometry import Geometry
from sweeper.core.values import Cell, Hardware, Workload
from sweeper.core.verdicts import Finding

GIB = 1024**3
CONTEXT_BYTES = int(1.0 * GIB)
"""CUDA context, library workspaces and NCCL buffers of one process."""
GRAPH_BYTES = int(1.0 * GIB)
"""CUDA graph pools; 0 where the cell switches graphs off."""
CHUNK_TOKENS = 8192
"""Tokens of one prefill chunk: the activation peak."""
STATE_BYTES = 4
"""A linear layer's recurrent state is kept in float32."""
UTILIZATION = {"vllm": 0.9, "sglang": 0.88}
"""Share of a GPU that an engine takes when the cell does not say."""

_BITS = {
    "nvfp4": 4.5,
    "nvfp4-w4a16": 4.5,
    "mxfp4": 4.25,
    "mxfp8": 8.25,
    "fp8": 8.0,
    "fp8-block": 8.002,
    "fp8-dynamic": 8.0,
    "int4": 4.16,
    "int4-w4a8": 4.16,
    "int8": 8.0,
    "w8a8": 8.0,
    "4bit": 4.16,
    "8bit": 8.0,
    "bnb-4bit": 4.13,
    "bnb-8bit": 8.0,
    "bf16": 16.0,
}
"""Bits per weight with scales: NVFP4 one FP8 scale per 16, MXFP4 and MXFP8 one per 32, INT4 scale and zero per 128."""

_LINEAR_PARTS = ("routed", "shared", "dense_mlp", "attention", "linear_attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFit:
    """Bytes of the fullest rank. `fits` is None where the GPU's memory is unknown."""

    fits: bool | None
    per_rank_bytes: int
    limit_bytes: int | None
    parts: Mapping[str, int]
    """weights, kv, state, mtp, overhead."""
    dominating: str
    knob: str
    """What would make it fit; empty when it fits."""
    checkpoint_bytes: int
    """All weights once, without the prediction head."""
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line: `57.9 of 86.0 GiB per rank (weights 55.2, kv 0.4, overhead 2.3)`."""
        shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in self.parts.items() if size >= 0.05 * GIB)
        limit = f" of {self.limit_bytes / GIB:.1f}" if self.limit_bytes is not None else ""
        return f"{self.per_rank_bytes / GIB:.1f}{limit} GiB per rank ({shown})"

    def to_json(self) -> dict[str, object]:
        return {
            "fits": self.fits,
            "per_rank_gib": round(self.per_rank_bytes / GIB, 2),
            "limit_gib": None if self.limit_bytes is None else round(self.limit_bytes / GIB, 2),
            "parts_gib": {name: round(size / GIB, 2) for name, size in self.parts.items()},
            "checkpoint_gb": round(self.checkpoint_bytes / 1e9, 1),
            "dominating": self.dominating,
            "knob": self.knob,
            "notes": list(self.notes),
        }


def bits_per_part(geometry: Geometry, family: str | None) -> dict[str, float]:
    """Bits per weight of each part when the checkpoint is of `family` (None: what the config declares, else bf16).

    Without a list of exceptions MXFP4 means routed experts only, as in GPT-OSS; every other family means all linear
    layers. Router, embedding and prediction head stay in 16 bits, and the head unless the checkpoint says otherwise.
    """
    name = families.family(family) or geometry.quantization or "bf16"
    low = _BITS.get(name, 16.0)
    chosen: Sequence[str]
    if geometry.quantized_parts is not None and (geometry.quantization or name) == name:
        chosen = geometry.quantized_parts
    elif name in dict(geometry.known_parts):
        chosen = dict(geometry.known_parts)[name]
    elif name == "mxfp4" and geometry.is_moe:
        chosen = ("routed",)
    else:
        chosen = _LINEAR_PARTS
    return {part: low if part in chosen else 16.0 for part in (*_LINEAR_PARTS, "router", "embedding", "head", "mtp")}


def size_known(family: str | None, geometry: Geometry) -> bool:
    """Whether the bits of a weight are known for what is told or, untold, for what the config declares."""
    name = families.family(family) or geometry.quantization
    return name is None or name in _BITS


def checkpoint_bytes(geometry: Geometry, family: str | None, *, mtp: bool = False) -> int:
    """Size of all weights in bytes."""
    bits = bits_per_part(geometry, family)
    return int(sum(n * bits[part] / 8 for part, n in geometry.params().items() if mtp or part != "mtp"))


def stage_layers(layers: int, stages: int) -> list[range]:
    """Layers of each pipeline stage; what is left over goes to the last stages but one, as vLLM deals them."""
    each, left = divmod(layers, stages)
    counts = [each] * stages
    for extra in range(left):
        counts[max(0, stages - 2 - extra % max(1, stages - 1))] += 1
    begins = [sum(counts[:index]) for index in range(stages)]
    return [range(begin, begin + count) for begin, count in zip(begins, counts, strict=True)]


def kv_bytes_per_token(
    geometry: Geometry, tp: int = 1, element_bytes: float = 2.0, layers: Sequence[int] | None = None
) -> float:
    """Bytes per token of context on one rank, sliding and linear layers left out: they do not grow with it."""
    chosen = range(geometry.layers) if layers is None else layers
    full = sum(geometry.layer_kinds[index] == "full" for index in chosen)
    return full * _kv_elements(geometry, tp) * element_bytes


def _kv_elements(geometry: Geometry, tp: int) -> float:
    """Per layer and rank. Fewer KV heads than ranks are replicated, a compressed cache is on every rank whole."""
    if geometry.is_mla:
        return geometry.kv_elements_per_token("full")
    heads = max(1, -(-geometry.kv_heads // tp))
    return (1 if geometry.shared_kv else 2) * heads * geometry.head_dim


def fit(
    cell: Cell,
    geometry: Geometry,
    hardware: Hardware,
    workloads: Sequence[Workload],
    *,
    weights_bytes: int | None = None,
) -> MemoryFit:
    """Memory of the fullest rank of a cell.

    `weights_bytes`: the checkpoint's exact size, which scales the estimate; None: what the geometry knows of it.
    """
    weights_bytes = geometry.stored_bytes if weights_bytes is None else weights_bytes
    parts, notes = _parts(cell, geometry, workloads, weights_bytes)
    total = sum(parts.values())
    limit = _limit(cell, hardware)
    fits = None if limit is None else total <= limit
    knob = "" if fits is not False else _knob(cell, geometry, hardware, workloads, weights_bytes)
    exact = weights_bytes if weights_bytes is not None else checkpoint_bytes(geometry, cell.quantization)
    return MemoryFit(
        fits=fits,
        per_rank_bytes=total,
        limit_bytes=limit,
        parts=parts,
        dominating=max(parts, key=lambda name: parts[name]),
        knob=knob,
        checkpoint_bytes=exact,
        notes=tuple(notes),
    )


def _limit(cell: Cell, hardware: Hardware) -> int | None:
    if hardware.memory_gib is None:
        return None
    share = cell.gpu_memory_utilization or UTILIZATION.get(cell.engine, 0.95)
    return int(hardware.memory_gib * GIB * share)


def _parts(
    cell: Cell, geometry: Geometry, workloads: Sequence[Workload], weights_bytes: int | None
) -> tuple[dict[str, int], list[str]]:
    p = cell.parallelism
    notes: list[str] = []
    scale = 1.0
    if weights_bytes is not None:
        estimate = checkpoint_bytes(geometry, cell.quantization)
        scale = weights_bytes / estimate if estimate else 1.0
    weights: list[float] = []
    caches: list[tuple[float, float]] = []
    stages = stage_layers(geometry.layers, p.pp)
    for number, layers in enumerate(stages):
        ends = (number == 0, number == len(stages) - 1)
        weights.append(_stage_weights(cell, geometry, layers, ends) * scale)
        caches.append(_stage_cache(cell, geometry, layers, workloads, notes))
    totals = [weight + sum(cache) for weight, cache in zip(weights, caches, strict=True)]
    fullest = totals.index(max(totals))
    parts = {
        "weights": int(weights[fullest]),
        "kv": int(caches[fullest][0]),
        "state": int(caches[fullest][1]),
        "mtp": int(_mtp_bytes(cell, geometry, notes)),
        "overhead": _overhead(cell, geometry),
    }
    if not geometry.is_mla and p.tp > geometry.kv_heads and p.tp % geometry.kv_heads == 0:
        notes.append(f"{geometry.kv_heads} KV heads on {p.tp} ranks: each is kept {p.tp // geometry.kv_heads} times")
    return parts, list(dict.fromkeys(notes))


def _stage_weights(cell: Cell, geometry: Geometry, layers: range, ends: tuple[bool, bool]) -> float:
    """Bytes of one rank of one stage. Experts spread over their ranks, whole (EP) or in slices; the rest over tp."""
    tp = cell.parallelism.tp
    bits = bits_per_part(geometry, cell.quantization)
    total = 0.0
    for index in layers:
        for part, count in geometry.layer_params(index).items():
            total += _sharded(cell, geometry, part, count) * bits[part] / 8
    first, last = ends
    if first:
        total += geometry.vocab * geometry.hidden * bits["embedding"] / 8 / tp
    if last and (not geometry.tied or not first):
        total += geometry.vocab * geometry.hidden * bits["head"] / 8 / tp
    return total


def expert_ranks(cell: Cell, tp: int) -> int:
    """Ranks that share the routed experts: tp x dp, in SGLang tp alone, whose data-parallel ranks are whole copies."""
    return tp if cell.engine == "sglang" else tp * cell.parallelism.dp


def _sharded(cell: Cell, geometry: Geometry, part: str, count: int) -> float:
    p = cell.parallelism
    if part == "router":
        return count
    if part == "routed":
        ranks = expert_ranks(cell, p.tp)
        if p.ep > 1:
            # A rank holds whole experts: the fullest one, where they do not divide evenly.
            return count / geometry.experts * -(-geometry.experts // ranks)
        return count / ranks
    if part == "attention" and geometry.is_mla:
        down = geometry.hidden * ((geometry.kv_rank or 0) + geometry.rope_dim + (geometry.q_rank or 0))
        return down + (count - down) / p.tp
    if part == "attention" and p.tp > geometry.kv_heads:
        kv = 2 * geometry.hidden * geometry.kv_heads * geometry.head_dim
        return (count - kv) / p.tp + 2 * geometry.hidden * geometry.head_dim
    return count / p.tp


def _stage_cache(
    cell: Cell, geometry: Geometry, layers: range, workloads: Sequence[Workload], notes: list[str]
) -> tuple[float, float]:
    """(KV bytes, state bytes) that the workloads need on one rank of one stage."""
    p = cell.parallelism
    size = kv_element_bytes(cell)
    streams = -(-max((c for work in workloads for c in work.concurrency), default=1) // p.dp)
    tokens = max((-(-c // p.dp) * (work.isl + work.osl) for work in workloads for c in work.concurrency), default=2048)
    tokens = max(tokens, _longest(cell, geometry, notes))
    element = _kv_elements(geometry, p.tp)
    kv = kv_bytes_per_token(geometry, p.tp, size, layers) * tokens
    sliding = sum(geometry.layer_kinds[index] == "sliding" for index in layers)
    if sliding and geometry.window:
        kv += sliding * element * size * min(tokens, streams * geometry.window)
    linear = sum(geometry.layer_kinds[index] == "linear" for index in layers)
    state = linear * geometry.state_elements() * STATE_BYTES * streams / p.tp
    return kv, state


def _longest(cell: Cell, geometry: Geometry, notes: list[str]) -> int:
    """Tokens of the longest sequence that the engine insists on holding."""
    if cell.max_model_len is not None:
        return cell.max_model_len
    if cell.engine == "vllm" and geometry.max_positions:
        notes.append(f"no max_model_len: vLLM insists on room for one sequence of {geometry.max_positions:,} tokens")
        return geometry.max_positions
    return 0


def kv_element_bytes(cell: Cell) -> float:
    """Bytes of one cached number: from --kv-cache-dtype in the extra arguments, else 2."""
    value = value_of(cell.extra_args, "--kv-cache-dtype", "--kv-cache-type")
    if value is None:
        return 2.0
    return 1.0 if "fp8" in value or "int8" in value else (0.5625 if "fp4" in value else 2.0)


def _mtp_bytes(cell: Cell, geometry: Geometry, notes: list[str]) -> float:
    """The prediction head on one rank, in 16 bits: the checkpoints seen leave it unquantized. It is not split by PP."""
    if cell.speculative is None or cell.speculative.method not in ("mtp", "nextn"):
        return 0.0
    if not geometry.mtp_layers:
        notes.append("the cell asks for MTP and the geometry lists no prediction head: its size is not counted")
        return 0.0
    return sum(_sharded(cell, geometry, part, count) * 2 for part, count in geometry.mtp_params().items())


def _overhead(cell: Cell, geometry: Geometry) -> int:
    eager = "--enforce-eager" in cell.extra_args or "--disable-cuda-graph" in cell.extra_args
    hidden = CHUNK_TOKENS * geometry.hidden * 2 * 6
    expert = (
        CHUNK_TOKENS * geometry.top_k * (geometry.hidden + 2 * geometry.moe_intermediate // cell.parallelism.tp) * 2
    )
    return CONTEXT_BYTES + (0 if eager else GRAPH_BYTES) + hidden + expert


def _knob(
    cell: Cell,
    geometry: Geometry,
    hardware: Hardware,
    workloads: Sequence[Workload],
    weights_bytes: int | None,
) -> str:
    """The first change that makes the cell fit, cheapest for the reader first."""
    for text, changed in _changes(cell, geometry, workloads):
        parts, _ = _parts(changed, geometry, workloads, weights_bytes)
        limit = _limit(changed, hardware)
        if limit is not None and sum(parts.values()) <= limit:
            world = changed.parallelism.world_size
            short = hardware.count is not None and world > hardware.count
            return f"{text} (this machine has {hardware.count} GPUs)" if short else text
    return "a smaller model or a smaller number format: no tp up to 64 holds it"


def _changes(cell: Cell, geometry: Geometry, workloads: Sequence[Workload]) -> list[tuple[str, Cell]]:
    out: list[tuple[str, Cell]] = []
    needed = max((work.isl + work.osl for work in workloads), default=2048)
    if cell.max_model_len is None or cell.max_model_len > needed:
        short = replace(cell, max_model_len=needed)
        out.append((f"--max-model-len {needed} (what the workloads need)", short))
        cell = short
    fp8 = replace(cell, extra_args=(*cell.extra_args, "--kv-cache-dtype", "fp8"))
    if kv_element_bytes(cell) > 1:
        out.append(("--kv-cache-dtype fp8", fp8))
    if cell.speculative is not None and geometry.mtp_layers:
        out.append(("no MTP: the prediction head does not fit", replace(cell, speculative=None)))
    if (cell.gpu_memory_utilization or UTILIZATION.get(cell.engine, 0.95)) < 0.95:
        out.append(("--gpu-memory-utilization 0.95", replace(cell, gpu_memory_utilization=0.95)))
    p = cell.parallelism
    for tp in (2, 4, 8, 16, 32, 64):
        if tp > p.tp:
            ep = expert_ranks(cell, tp) if p.ep > 1 else 1
            out.append((f"tp={tp}", replace(cell, parallelism=replace(p, tp=tp, ep=ep))))
    return out


def size_finding(geometry: Geometry, family: str | None, published_gb: float, *, source: str = "") -> Finding | None:
    """A published checkpoint size that the format cannot have: more than 15 % off. `published_gb` in 1e9 bytes."""
    expected_gb = checkpoint_bytes(geometry, family) / 1e9
    if abs(published_gb - expected_gb) <= 0.15 * expected_gb:
        return None
    name = families.family(family) or geometry.quantization or "bf16"
    bits = published_gb * 8e9 / geometry.total_params()
    text = (
        f"published size {published_gb:g} GB{f' ({source})' if source else ''} does not match the format: "
        f"{geometry.total_params() / 1e9:.0f} B weights in {name} are {expected_gb:.0f} GB; "
        f"{published_gb:g} GB would be {bits:.1f} bits per weight"
    )
    return Finding(id="published-size-inconsistent", text=text)
