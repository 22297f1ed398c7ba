"""Speed of light: how fast a cell could decode if only bytes, operations and links cost time.

Per decode step with B sequences and w tokens each (w = 1, or K + 1 when K drafts are verified), n = B w:

    experts hit   E(n) = E (1 - (1 - k/E)^n)                     uniform routing; skewed routing hits fewer
    bytes         routed(E(n)) + dense + KV(context) B + state B (read and written)
    t_memory      bytes / (ranks x bandwidth x efficiency)       one micro-batch: pipeline stages do not add bandwidth
    t_compute     2 x active weights x n / (ranks x FLOP/s)
    t_link        2 all-reduces a layer, ring: 2 (TP-1)/TP S/link + 2 (TP-1) alpha
    t_draft       K x (prediction layer + output head over the ranks, 2 all-reduces)
    tok/s         B x acceptance length / (max(t_memory, t_compute) + t_link + t_draft)

A number above it breaks an assumption. One bound needs none: the dense weights are read in every step, so nothing
decodes faster than B (K + 1) / (dense bytes / bandwidth), unless they fit the GPU's L2 cache. docs/limits.md derives
the terms and lists what is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import ndtri

from sweeper.core.arguments import value_of
from sweeper.core.geometry import Geometry
from sweeper.core.memory import bits_per_part
from sweeper.core.points import DecodePoint
from sweeper.core.values import Cell
from sweeper.core.verdicts import Finding

EFFICIENCY = 0.8
"""Share of the peak bandwidth that good kernels reach: 82 % measured for a BF16 GEMV on RTX PRO 6000 Blackwell."""
STATE_BYTES = 4
"""A linear layer's recurrent state is kept in float32."""
HOP_S = 10e-6
"""Hand-over between two pipeline stages."""
DENSE_PARTS = ("shared", "dense_mlp", "attention", "linear_attention", "router")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Constants of one kind of GPU and the link between several. FLOP/s are dense; None: not published."""

    name: str
    bandwidth_gb_s: float
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    fp4_tflops: float | None = None
    link: str | None = None
    link_gb_s: float | None = None
    """One way, per GPU."""
    alpha_us: float = 0.0
    """Latency of one step of a ring all-reduce."""
    l2_mib: float | None = None
    memory_gib: float | None = None
    power_limit_w: float | None = None
    sm: str | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedOfLight:
    """Limits of one cell at one concurrency, output tokens per second over all streams."""

    peak_tok_s: float
    """Full bandwidth, links free."""
    tok_s: float
    """80 % of the bandwidth and this link: what a measured cell is held against."""
    bound_tok_s: float | None
    """Unconditional: dense weights alone at full bandwidth, every draft accepted. None: they may stay in the cache."""
    step_ms: float
    """Verification and drafts at 80 %."""
    parts: Mapping[str, float]
    """Milliseconds of a step: dense, experts, kv, state, compute (what it adds), link, draft."""
    largest: str
    break_even: float | None
    """Acceptance length at which speculative decoding starts to pay, from bandwidth and links; None without it."""
    acceptance_length: float
    """Tokens per step that `tok_s` assumes."""
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]


NAMES = {
    "dense": "dense weights",
    "experts": "routed experts",
    "kv": "KV cache",
    "state": "recurrent state",
    "compute": "arithmetic beyond the reads",
    "link": "all-reduce",
    "draft": "drafting",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How much of its limit a measured cell reaches."""

    share: float
    limit_tok_s: float
    bound_tok_s: float | None
    term: str
    """The largest part of a step: dense, experts, kv, state, compute, link, draft."""
    term_share: float

    def text(self) -> str:
        """`61% of 177 tok/s; largest term dense weights, 54% of a step`."""
        return (
            f"{self.share:.0%} of {self.limit_tok_s:.0f} tok/s; "
            f"largest term {NAMES[self.term]}, {self.term_share:.0%} of a step"
        )


def reached(measured_tok_s: float, limit: SpeedOfLight) -> Reached:
    """Share of the limit, and what the limit is made of."""
    return Reached(
        share=measured_tok_s / limit.tok_s,
        limit_tok_s=limit.tok_s,
        bound_tok_s=limit.bound_tok_s,
        term=limit.largest,
        term_share=limit.parts[limit.largest] / sum(limit.parts.values()),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """Bytes of one verification of w tokens per sequence, and its time at full bandwidth and on the links, seconds."""

    parts: Mapping[str, float]
    link_s: float
    compute_s: float

    def memory_s(self, efficiency: float) -> float:
        return sum(self.parts.values()) / efficiency


def speed_of_light(
    cell: Cell,
    geometry: Geometry,
    board: Board,
    *,
    context: int,
    concurrency: int,
    acceptance: float | None = None,
    all_reduce_us: float | None = None,
) -> SpeedOfLight:
    """Limits of a cell. `context`: tokens a sequence holds; `acceptance`: measured acceptance length.

    Without an acceptance every draft counts as accepted. `all_reduce_us` replaces the ring formula by a measured time
    of one all-reduce at this message size.
    """
    tokens = cell.speculative.tokens if cell.speculative else 0
    plain = _step(cell, geometry, board, context, concurrency, 1, all_reduce_us)
    step = _step(cell, geometry, board, context, concurrency, 1 + tokens, all_reduce_us)
    draft, drafts_known = _draft(cell, geometry, board, concurrency, all_reduce_us)
    length = min(acceptance, 1 + tokens) if acceptance is not None else 1.0 + tokens
    parts = {name: 1e3 * seconds / EFFICIENCY for name, seconds in step.parts.items()}
    parts |= {
        "compute": 1e3 * max(0.0, step.compute_s - step.memory_s(EFFICIENCY)),
        "link": 1e3 * step.link_s,
        "draft": 1e3 * (draft[0] / EFFICIENCY + draft[1]),
    }
    total_s = sum(parts.values()) / 1e3
    plain_s = max(plain.memory_s(EFFICIENCY), plain.compute_s) + plain.link_s
    return SpeedOfLight(
        peak_tok_s=concurrency * length / (max(step.memory_s(1.0), step.compute_s) + draft[0]),
        tok_s=concurrency * length / total_s,
        bound_tok_s=None if _cached(step, board) else concurrency * (1 + tokens) / step.parts["dense"],
        step_ms=1e3 * total_s,
        parts=parts,
        largest=max(parts, key=lambda name: parts[name]),
        break_even=total_s / plain_s if tokens else None,
        acceptance_length=length,
        assumptions=(
            *_assumptions(cell, geometry, board, acceptance, drafts_known, all_reduce_us),
            *(
                ("weights may stay in the L2 cache: bandwidth need not limit this model",)
                if _cached(step, board)
                else ()
            ),
        ),
        sources=board.sources,
    )


def _cached(step: _Step, board: Board) -> bool:
    """Dense weights of a rank so small that a large part of them survives in the L2 cache from step to step."""
    return board.l2_mib is not None and step.parts["dense"] * board.bandwidth_gb_s * 1e9 < 4 * board.l2_mib * 2**20


def _step(
    cell: Cell,
    geometry: Geometry,
    board: Board,
    context: int,
    concurrency: int,
    width: int,
    all_reduce_us: float | None,
) -> _Step:
    p = cell.parallelism
    per_replica = math.ceil(concurrency / p.dp)
    bandwidth = board.bandwidth_gb_s * 1e9
    bits = bits_per_part(geometry, cell.quantization)
    counts = geometry.params()
    head = counts["head"] or counts["embedding"]
    dense = sum(counts[part] * bits[part] / 8 for part in DENSE_PARTS) + head * bits["head"] / 8
    one_expert = geometry.expert_params() * bits["routed"] / 8 * sum(geometry.moe_layers)
    kv = _kv_bytes(geometry, p.tp, context, _kv_element_bytes(cell, geometry))
    state = 2.0 * geometry.linear_layers() * geometry.state_elements() * STATE_BYTES
    parts = {
        "dense": dense / p.tp / bandwidth,
        "experts": experts_per_rank(geometry, cell, concurrency * width) * one_expert / bandwidth,
        "kv": per_replica * kv / bandwidth,
        "state": per_replica * state / p.tp / bandwidth,
    }
    return _Step(
        parts=parts,
        link_s=_link_s(geometry, board, cell, per_replica * width, all_reduce_us),
        compute_s=_compute_s(cell, geometry, board, concurrency * width),
    )


def experts_hit(geometry: Geometry, tokens: int) -> float:
    """Distinct experts of one layer that `tokens` tokens reach when each picks uniformly."""
    if not geometry.is_moe:
        return 0.0
    return geometry.experts * (1 - (1 - geometry.top_k / geometry.experts) ** tokens)


def experts_per_rank(geometry: Geometry, cell: Cell, tokens: int) -> float:
    """Experts whose bytes the busiest rank reads: an equal slice of all under TP, the fullest rank's under EP.

    The fullest of R ranks holds about mean + sd x (expected largest of R normals), sd of a draw without replacement.
    """
    hit, ranks = experts_hit(geometry, tokens), cell.parallelism.tp * cell.parallelism.dp
    if cell.parallelism.ep <= 1 or ranks == 1 or not hit:
        return hit / ranks
    spread = hit / ranks * (1 - 1 / ranks) * (1 - (hit - 1) / max(1, geometry.experts - 1))
    return hit / ranks + math.sqrt(max(0.0, spread)) * float(ndtri((ranks - 0.375) / (ranks + 0.25)))


def _kv_element_bytes(cell: Cell, geometry: Geometry) -> float:
    kind = value_of(cell.extra_args, "--kv-cache-dtype") or ""
    return 1.0 if kind.startswith("fp8") else 0.5 if kind.startswith("nvfp4") else 2.0


def _kv_bytes(geometry: Geometry, tp: int, context: int, element_bytes: float) -> float:
    """Bytes of one sequence that one rank reads in a step. Fewer KV heads than ranks are replicated."""
    if geometry.is_mla:
        elements = float(geometry.kv_elements_per_token("full"))
    else:
        elements = geometry.kv_elements_per_token("full") / min(tp, geometry.kv_heads)
    kept = {"full": context, "sliding": min(context, geometry.window or context), "linear": 0}
    return sum(kept[kind] for kind in geometry.layer_kinds) * elements * element_bytes


def all_reduce_s(board: Board, ranks: int, size_bytes: float) -> float:
    """Ring all-reduce of `size_bytes` over `ranks` GPUs; 0 for one rank, latency only where the link is unknown."""
    if ranks < 2:
        return 0.0
    transfer = 2 * (ranks - 1) / ranks * size_bytes / (board.link_gb_s * 1e9) if board.link_gb_s else 0.0
    return transfer + 2 * (ranks - 1) * board.alpha_us * 1e-6


def _link_s(geometry: Geometry, board: Board, cell: Cell, tokens: int, all_reduce_us: float | None) -> float:
    p = cell.parallelism
    size = tokens * geometry.hidden * 2
    one = all_reduce_us * 1e-6 if all_reduce_us is not None and p.tp > 1 else all_reduce_s(board, p.tp, size)
    hop = HOP_S + (size / (board.link_gb_s * 1e9) if board.link_gb_s else 0.0)
    return 2 * geometry.layers * one + (p.pp - 1) * hop


def _compute_s(cell: Cell, geometry: Geometry, board: Board, tokens: int) -> float:
    """Arithmetic at the routed experts' precision and, for the rest, at its own; 0 where a rate is unknown."""
    bits, p = bits_per_part(geometry, cell.quantization), cell.parallelism
    counts = geometry.params()
    routed = counts["routed"] * geometry.top_k / geometry.experts if geometry.experts else 0.0
    work = {part: float(counts[part]) for part in DENSE_PARTS} | {"routed": routed, "head": float(counts["embedding"])}
    total = 0.0
    for part, weights in work.items():
        rate = _flops(board, bits[part], weight_only=(cell.quantization or "").endswith("a16"))
        total += 2 * weights * tokens / (p.tp * p.dp * rate) if rate else 0.0
    return total


def _flops(board: Board, bits: float, *, weight_only: bool) -> float | None:
    tera = board.bf16_tflops
    if not weight_only and bits < 6:
        tera = board.fp4_tflops or board.fp8_tflops or tera
    elif not weight_only and bits < 12:
        tera = board.fp8_tflops or tera
    return tera * 1e12 if tera else None


def _draft(
    cell: Cell, geometry: Geometry, board: Board, concurrency: int, all_reduce_us: float | None
) -> tuple[tuple[float, float], bool]:
    """((memory seconds at full bandwidth, link seconds) of all drafts, known)."""
    spec, p = cell.speculative, cell.parallelism
    if spec is None or spec.method in ("ngram", "suffix"):
        return (0.0, 0.0), True
    layer = geometry.mtp_params()
    if spec.method != "mtp" or not layer:
        return (0.0, 0.0), False
    bits = bits_per_part(geometry, cell.quantization)
    dense = sum(count for part, count in layer.items() if part != "routed") / geometry.mtp_layers
    experts = experts_hit(geometry, concurrency) * geometry.expert_params()
    head = geometry.vocab * geometry.hidden * bits["head"] / 8
    size = (dense + experts) * bits["mtp"] / 8 + head
    per_replica = math.ceil(concurrency / p.dp)
    one = all_reduce_s(board, p.tp, per_replica * geometry.hidden * 2)
    if all_reduce_us is not None and p.tp > 1:
        one = all_reduce_us * 1e-6
    return (spec.tokens * size / (p.tp * board.bandwidth_gb_s * 1e9), spec.tokens * 2 * one), True


def _assumptions(
    cell: Cell,
    geometry: Geometry,
    board: Board,
    acceptance: float | None,
    drafts_known: bool,
    all_reduce_us: float | None,
) -> tuple[str, ...]:
    out = [f"{board.bandwidth_gb_s / 1000:.3f} TB/s per GPU, {EFFICIENCY:.0%} of it reachable"]
    if geometry.is_moe:
        out.append("uniform routing: skewed routing reads fewer experts and can beat this limit above one stream")
    if cell.parallelism.ep > 1 and geometry.is_moe:
        out.append("expert parallel: the fullest rank sets the pace; its all-to-all is not counted")
    if cell.parallelism.pp > 1:
        out.append("one micro-batch: stages work one after the other")
    if cell.parallelism.tp > 1:
        if all_reduce_us is not None:
            out.append(f"{all_reduce_us:.1f} us per all-reduce as measured")
        else:
            out.append(f"ring all-reduce, {board.alpha_us:.1f} us a step" + (f" on {board.link}" if board.link else ""))
    if cell.speculative and acceptance is None:
        out.append("every draft accepted")
    if not drafts_known:
        out.append("the cost of drafting is not known and not counted")
    if board.bf16_tflops is None:
        out.append("arithmetic not counted: no FLOP/s known for this GPU")
    return tuple(out)


def held_against(measured_tok_s: float | None, limit: SpeedOfLight) -> tuple[float | None, tuple[Finding, ...]]:
    """Share of the limit, and what a share above one means: an assumption to check, or a figure that cannot be."""
    if measured_tok_s is None:
        return None, ()
    share = measured_tok_s / limit.tok_s
    if limit.bound_tok_s is not None and measured_tok_s > limit.bound_tok_s:
        text = (
            f"{measured_tok_s:.0f} tok/s is above the unconditional bound of {limit.bound_tok_s:.0f} tok/s "
            "(dense weights alone at full bandwidth): the figure, the geometry or the bandwidth is wrong"
        )
        return share, (Finding(id="above-speed-of-light", text=text),)
    if share > 1:
        text = f"{share:.0%} of the speed of light: check the assumptions ({'; '.join(limit.assumptions)})"
        return share, (Finding(id="above-assumed-limit", text=text),)
    return share, ()


def context_of(point: DecodePoint) -> int:
    """Tokens that a sequence holds on average while a point was measured: prompt and half of the output."""
    return (point.isl or 0) + (point.osl or 0) // 2
