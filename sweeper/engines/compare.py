"""What a cell asked for against what its log proves: every difference is a finding."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.core import families
from sweeper.core.arguments import runs_on_cpu
from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell
from sweeper.core.verdicts import Finding
from sweeper.engines import names

TOO_MANY_SKIPPED = 0.5
"""Share of skipped autotuner tactics above which the tuning says little."""


def compare_requested(cell: Cell, effective: EffectiveConfig) -> tuple[Finding, ...]:
    """Findings where both sides are known and differ. What the log does not say is no finding."""
    parts = (_moe, _draft, _linear, _attention, _parallel, _quantization, _version, _fallbacks, _tuning, _jit)
    return tuple(finding for part in parts for finding in part(cell, effective))


def _moe(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    wanted, ran = cell.moe_backend.strip().lower().replace("-", "_"), effective.moe_backend
    if ran is None:
        return
    if wanted != "auto" and wanted != ran and not _same(wanted, ran):
        yield Finding(
            id="moe-backend-differs",
            text=f"MoE backend {wanted} was asked for, the log shows {ran} ({effective.moe_backend_raw})",
        )
    if effective.moe_backend_ran is False:
        yield Finding(
            id="moe-backend-selected-not-run",
            text=f"MoE backend {ran} was selected, but another kernel ran for some or all calls",
        )


_TRITON = {"triton", "batched_triton", "triton_unfused"}
"""One kernel in several layouts."""


def _same(wanted: str, ran: str) -> bool:
    return {wanted, ran} <= _TRITON


def _draft(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    spec, ran = cell.speculative, effective.draft_moe_backend
    if spec is None or ran is None:
        return
    wanted = spec.moe_backend or (cell.moe_backend if cell.moe_backend != "auto" else None)
    if wanted is not None and wanted != "auto" and names.moe(wanted) != ran:
        yield Finding(id="draft-backend-differs", text=f"the draft's MoE backend is {ran}, {wanted} was asked for")


_LINEAR_FLAG = {names.FLASHINFER_DEEP_GEMM: "flashinfer_cutlass"}
"""Kernels that a command line names otherwise than they are."""


def _linear(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    wanted, ran = cell.linear_backend, effective.linear_backend
    if wanted is None or ran is None or wanted.lower() == "auto":
        return
    if wanted.lower().replace("-", "_") not in (ran, _LINEAR_FLAG.get(ran)):
        yield Finding(id="linear-backend-differs", text=f"linear backend {wanted} was asked for, the log shows {ran}")


def _attention(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    wanted, ran = cell.attention_backend, effective.attention_backend
    if wanted is None or ran is None or wanted.lower() == "auto":
        return
    if names.attention(wanted) != names.attention(ran):
        yield Finding(
            id="attention-backend-differs", text=f"attention backend {wanted} was asked for, the log shows {ran}"
        )


def _parallel(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    p = cell.parallelism
    for name, wanted, ran in (
        ("tp", p.tp, effective.tp),
        ("pp", p.pp, effective.pp),
        ("dp", p.dp, effective.dp),
        ("ep", p.ep, effective.ep),
    ):
        if ran is not None and ran != wanted:
            yield Finding(id=f"{name}-differs", text=f"{name}={wanted} was asked for, the log shows {name}={ran}")


_FORMAT_OF = {"compressed-tensors": None, "modelopt": "fp8", "modelopt_mixed": None, "awq_marlin": "int4"}
"""Names that do not say the number format map to None."""


def _quantization(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    wanted, ran = families.table(cell.quantization), effective.quantization
    if wanted is None or ran is None or cell.engine not in ("vllm", "sglang"):
        return
    got = _FORMAT_OF[ran] if ran in _FORMAT_OF else families.table(ran.replace("gptq_marlin", "gptq"))
    if got is not None and got != wanted and not wanted.startswith("bnb"):
        yield Finding(id="quantization-differs", text=f"the cell says {cell.quantization}, the log shows {ran}")


def _version(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    wanted, ran = cell.engine_version, effective.engine_version
    if wanted is None or ran is None:
        return
    plain = wanted.lstrip("v").split("+")[0]
    if not ran.split("+")[0].startswith(plain):
        yield Finding(
            id="engine-version-differs",
            text=f"engine_version {wanted} is declared, the server is {ran}: rules and flags were chosen for {wanted}",
        )


def _fallbacks(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    for sentence in effective.fallbacks:
        yield Finding(id="fallback", text=sentence)


def _tuning(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    skipped, total = effective.autotune_skipped, effective.autotune_total
    if not skipped:
        return
    if total and skipped / total >= TOO_MANY_SKIPPED:
        text = f"the autotuner skipped {skipped} of {total} tactics: what is left may be slow"
        yield Finding(id="autotune-mostly-skipped", text=text)
    else:
        shown = f" of {total}" if total else ""
        yield Finding(id="autotune-skipped", text=f"the autotuner skipped {skipped}{shown} tactics")


def _jit(cell: Cell, effective: EffectiveConfig) -> Iterator[Finding]:
    if effective.jit_in_run and not runs_on_cpu(cell):
        compiled = "1 kernel was" if effective.jit_in_run == 1 else f"{effective.jit_in_run} kernels were"
        text = f"{compiled} compiled after the server was ready: a window that holds one is slow"
        yield Finding(id="jit-in-run", text=text)
