"""What a server proves to have run, as opposed to what was asked of it.

Every field is None (or empty) until a log line or an API answer proves it. `evidence` maps a field name to the number
of the log line, from 1, that proved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPhase:
    """One stretch of start-up. `seconds` is None where neither the log's stamps nor its text give a duration."""

    name: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveConfig:
    """Facts read off a log."""

    engine: str | None = None
    engine_version: str | None = None
    moe_backend: str | None = None
    """In the vocabulary of the command line where one exists (`cutlass`, not `VLLM_CUTLASS`)."""
    moe_backend_raw: str | None = None
    """As the engine wrote it."""
    moe_backend_ran: bool | None = None
    """None: the line says selected only. False: the engine says another kernel ran per call. True: proven."""
    draft_moe_backend: str | None = None
    linear_backend: str | None = None
    attention_backend: str | None = None
    draft_attention_backend: str | None = None
    quantization: str | None = None
    dtype: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    """Expert-parallel size; 1 when the engine says experts are not spread."""
    weights_load_s: float | None = None
    weights_gib: float | None = None
    """Per rank."""
    kv_cache_tokens: int | None = None
    kv_cache_gib: float | None = None
    """Per rank."""
    max_model_len: int | None = None
    cuda_graphs: bool | None = None
    graph_capture_s: float | None = None
    autotune_skipped: int | None = None
    autotune_total: int | None = None
    jit_in_run: int | None = None
    """Kernel compilations after the server was ready."""
    speculative_method: str | None = None
    acceptance_length: float | None = None
    """Last value the engine printed: accepted tokens per step, bonus token included."""
    acceptance_rate: float | None = None
    generation_tok_s: tuple[float, ...] = ()
    """The engine's periodic lines, in order."""
    model_runner: str | None = None
    fallbacks: tuple[str, ...] = ()
    """One sentence each: what was replaced by what."""
    boot: tuple[BootPhase, ...] = ()
    ready: bool = False
    evidence: Mapping[str, int] = field(default_factory=dict)

    @property
    def weight_only(self) -> bool:
        """By the log, experts and linear layers multiply 16-bit activations. False: they do not, or nothing says so."""
        return self.moe_backend_ran is not False and {self.moe_backend, self.linear_backend} == {"marlin"}
