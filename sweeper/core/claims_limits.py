"""What physics says about a claim under its own stated conditions, before anything is measured.

Two bounds, from `roofline`: dense weights alone at full bandwidth, which needs no assumption; and the whole step with
routed experts, which needs one (which experts are read, how much of the bandwidth is reachable) and names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.core.claims import RATES, Claim
from sweeper.core.geometry import Geometry
from sweeper.core.memory import bits_per_part, checkpoint_bytes
from sweeper.core.roofline import EFFICIENCY, Board, SpeedOfLight, speed_of_light
from sweeper.core.values import Cell, Parallelism, Speculative

WEIGHTS = "GB of weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`broken` names the bound that the claim beats, None when it beats none; `notes` are worth knowing either way."""

    broken: str | None
    unconditional: bool = False
    total: str | None = None
    """Why the number is plausible as input and output tokens together, where it is not as output."""
    notes: tuple[str, ...] = ()


def limit(claim: Claim, geometry: Geometry | None, board: Board | None) -> Limit | None:
    """None where it cannot be said: no rate, an unknown model, format or GPU, concurrency or speculation not stated."""
    if geometry is None or not _format_known(claim, geometry):
        return None
    if claim.unit == WEIGHTS:
        return _weights(claim, geometry)
    if claim.kind not in RATES or board is None:
        return None
    cell, concurrency = _cell(claim), claim.conditions.concurrency
    if cell is None or concurrency is None:
        return None
    bounds = speed_of_light(
        cell, geometry, board, context=_context(claim), concurrency=concurrency,
        acceptance=claim.conditions.acceptance_length,
    )  # fmt: skip
    value = claim.low * (concurrency if claim.kind == "per-user" else 1)
    broken, unconditional = _broken(value, bounds, concurrency)
    return Limit(
        broken=broken,
        unconditional=unconditional,
        total=_total(claim, value, bounds, concurrency) if broken else None,
        notes=_notes(claim, value, bounds, concurrency, cell),
    )


def _format_known(claim: Claim, geometry: Geometry) -> bool:
    family = claim.conditions.quantization
    if family is None:
        return False
    return family in ("bf16", "fp16") or min(bits_per_part(geometry, family).values()) < 16


def _weights(claim: Claim, geometry: Geometry) -> Limit:
    """Fewer bytes than the format needs for the model's parameters."""
    size = checkpoint_bytes(geometry, claim.conditions.quantization) / 1e9
    if claim.high >= 0.95 * size:
        return Limit(broken=None)
    text = (
        f"{claim.high:g} GB of weights is less than the {size:.0f} GB that {claim.conditions.quantization} needs for "
        "this model's parameters"
    )
    return Limit(broken=text, unconditional=True)


def _cell(claim: Claim) -> Cell | None:
    c = claim.conditions
    if c.speculative is None or (c.speculative != "none" and c.draft_tokens is None):
        return None
    degrees = {"tp": c.tp, "pp": c.pp, "dp": c.dp, "ep": c.ep}
    known = {name: value for name, value in degrees.items() if value is not None}
    if not {"tp", "pp", "dp"} & set(known):
        known["tp"] = c.gpus or 1
    method = {"nextn": "mtp"}.get(c.speculative, c.speculative)
    draft = Speculative(method=method, tokens=c.draft_tokens) if c.draft_tokens and method != "none" else None
    fp8_kv = ("--kv-cache-dtype", "fp8") if c.kv_cache and "fp8" in c.kv_cache else ()
    return Cell(
        engine=c.engine or "vllm",
        model=c.model or "",
        quantization=c.quantization,
        parallelism=Parallelism(**known),
        speculative=draft,
        extra_args=fp8_kv,
    )


def _context(claim: Claim) -> int:
    c = claim.conditions
    return c.context if c.context is not None else (c.isl or 0) + (c.osl or 0) // 2


def _broken(value: float, bounds: SpeedOfLight, concurrency: int) -> tuple[str | None, bool]:
    """The bound that is beaten. Above one stream skewed routing may beat uniform routing, so only the peak counts."""
    if bounds.bound_tok_s is not None and value > bounds.bound_tok_s:
        text = (
            f"{value:g} tok/s is {value / bounds.bound_tok_s:.2f} times what the dense weights alone allow at full "
            f"bandwidth ({bounds.bound_tok_s:.0f} tok/s); no assumption is needed for that"
        )
        return text, True
    if value > bounds.peak_tok_s:
        which = "top-k experts of one token" if concurrency == 1 else "uniform routing"
        text = (
            f"{value:g} tok/s is above {bounds.peak_tok_s:.0f} tok/s, the limit with routed experts at full bandwidth "
            f"and free links; assumed: {which}"
        )
        return text, False
    if value > bounds.tok_s and concurrency == 1:
        text = (
            f"{value:g} tok/s is {value / bounds.tok_s:.2f} times the {bounds.tok_s:.0f} tok/s that "
            f"{EFFICIENCY:.0%} of the bandwidth and this link allow; assumed: {'; '.join(bounds.assumptions)}"
        )
        return text, False
    return None, False


def _total(claim: Claim, value: float, bounds: SpeedOfLight, concurrency: int) -> str | None:
    c = claim.conditions
    if not c.isl or not c.osl:
        return None
    output = value * c.osl / (c.isl + c.osl)
    if _broken(output, bounds, concurrency)[0]:
        return None
    return as_output(value, c.isl, c.osl)


def as_output(total: float, isl: int, osl: int) -> str:
    """`658 tok/s of input and output together is 73.1 tok/s of output at 8192/1024`."""
    output = total * osl / (isl + osl)
    return f"{total:g} tok/s of input and output together is {output:.1f} tok/s of output at {isl}/{osl}"


def _notes(claim: Claim, value: float, bounds: SpeedOfLight, concurrency: int, cell: Cell) -> tuple[str, ...]:
    if cell.speculative is None:
        return ()
    need = value / concurrency * bounds.step_ms / 1e3
    most = 1 + cell.speculative.tokens
    if need <= 1:
        return ()
    return (f"needs {need:.1f} of at most {most} accepted tokens a step even at the speed of memory",)
