"""The golden file: what a perfect server would answer, as `golden.json.gz` beside the checkpoint.

Loads with pydantic alone. One gzip-compressed JSON object; the fields are the models below. Log-probabilities are
natural logarithms in float32, rounded to 1e-5. Position i of `prompt_logprobs` is log p(token i | tokens before it),
None for the first token, as engines report it.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sweeper.core.errors import BadFile

SCHEMA = 1
FILE_NAME = "golden.json.gz"

TopK = list[tuple[int, float]]
"""(token id, log-probability), best first."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tolerance(_Model):
    """What a healthy kernel of this quantisation family may be off by, averaged over all scored positions.

    `nll_shift`: |mean NLL - golden mean NLL| in nats. `kl_topk`: mean KL(golden || server) over the golden top-k,
    renormalised. `argmax_agreement`: least share of positions whose best token is the golden one.
    """

    nll_shift: float
    kl_topk: float
    argmax_agreement: float
    kl_typical: float | None = None
    """Mean KL without the largest 5 %; trained weights only."""
    source: str


class Case(_Model):
    """One prompt. `prompt` is its text where there is one; ids are what must be sent.

    `greedy_*` are empty where no continuation was computed.
    """

    id: str
    prompt: str | None = None
    prompt_ids: list[int]
    prompt_logprobs: list[float | None]
    prompt_top: list[TopK | None]
    prompt_experts: dict[int, list[list[int]]] = Field(default_factory=dict)
    """By MoE layer: the experts that the reference chose for each prompt token. Of drawn weights only."""
    greedy_ids: list[int] = Field(default_factory=list)
    greedy_logprobs: list[float] = Field(default_factory=list)
    greedy_top: list[TopK] = Field(default_factory=list)
    greedy_text: str | None = None


class GoldenFile(_Model):
    """`versions`: packages that computed it. `reference`: the transformers class and its number format.

    `served_name`: nothing depends on it; a label for reports.
    """

    schema_: Literal[1] = Field(alias="schema")
    served_name: str
    quant: str
    model_type: str
    seed: int | None
    vocab_size: int
    top_k: int
    reference: str
    versions: dict[str, str]
    tolerance: Tolerance
    mean_nll: float
    uniform_nll: float
    cases: list[Case]


TOLERANCES: dict[str, Tolerance] = {}


def _tolerance(names: str, nll_shift: float, kl_topk: float, argmax_agreement: float, source: str) -> None:
    for name in names.split():
        TOLERANCES[name] = Tolerance(
            nll_shift=nll_shift, kl_topk=kl_topk, argmax_agreement=argmax_agreement, source=source
        )


_KERNELS = "FlashInfer tests/moe, element-wise: bf16 1e-2, fp8 1e-1, nvfp4 2e-1, mxfp4 95 % within 1.0 + 5 %"
_MEASURED = "healthy `tiny` canaries over seeds (benchmarks/check_faults --drawn) reach"
_tolerance(
    "bf16 nvfp4-w4a16 int4", 0.02, 0.02, 0.94,
    f"weights exact, activations bf16: {_MEASURED} shift 0.009, KL 0.003; {_KERNELS}",
)  # fmt: skip
_tolerance(
    "fp8 fp8-block", 0.05, 0.025, 0.90,
    f"activations in e4m3 or bf16: {_MEASURED} shift 0.017, KL 0.013; {_KERNELS}",
)  # fmt: skip
_tolerance(
    "nvfp4 mxfp4", 0.12, 0.15, 0.75,
    f"activations in e2m1, fp8 or bf16 as the backend likes: {_MEASURED} shift 0.054, KL 0.055 in e2m1, "
    f"and bf16's figures where the backend multiplies weights only; {_KERNELS}",
)  # fmt: skip


def load(path: Path) -> GoldenFile:
    """Read a golden file, compressed or not. Raises BadFile naming the path and what is wrong."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadFile(str(path), f"cannot be read: {error.strerror}") from None
    try:
        return GoldenFile.model_validate_json(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or None
        raise BadFile(str(path), f"not a golden file: {first['msg']}", key=key) from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(str(path), f"damaged gzip data: {error}") from None


def find(folder: Path) -> Path | None:
    """The golden file of a checkpoint folder, or None."""
    for name in (FILE_NAME, "golden.json"):
        if (folder / name).is_file():
            return folder / name
    return None


def save(golden: GoldenFile, path: Path) -> None:
    """Write compressed; the same content gives the same bytes (no time stamp inside)."""
    text = json.dumps(golden.model_dump(by_alias=True, mode="json"), separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def mean_nll(cases: list[Case]) -> float:
    """Mean negative log-likelihood in nats over all scored prompt tokens. nan without any."""
    scored = [value for case in cases for value in case.prompt_logprobs if value is not None]
    return -sum(scored) / len(scored) if scored else math.nan
