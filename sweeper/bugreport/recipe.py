"""How a failure is shown without the weights: which canary stands in for the model, and the cell that runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from sweeper.bugreport.case import Case
from sweeper.canary import cut
from sweeper.core import families
from sweeper.core.errors import UsageError
from sweeper.core.values import Cell
from sweeper.core.verdicts import Phase

MODEL = "./canary"
QUANTS = ("bf16", "fp8", "fp8-block", "nvfp4", "nvfp4-w4a16", "mxfp4", "int4")
_MAX_LEN = 1024

NEEDS_WEIGHTS = (
    "cuda-oom", "checkpoint-corrupt", "mtp-weights", "hf-", "model-not-found", "host-oom-kill", "disk-full",
    "cpu-kv-cache", "kv-cache-request", "max-model-len-exceeds-kv", "chat-template", "spec-low-acceptance",
)  # fmt: skip
"""Starts of causes that lie in the size or the files of the real checkpoint: a canary cannot show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The canary of a report. `kind`: like (built from `config`), speaking (shipped with sweeper), none."""

    kind: str
    quant: str = "bf16"
    layers: int | None = None
    mtp: bool = False
    golden: bool = False
    """Numbers are part of the failure: golden vectors are needed to see it."""
    config: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def recipe_of(case: Case) -> Recipe:
    """The best stand-in for the case's model, with what it cannot show."""
    cell, cause = case.cell, case.verdict.cause
    if cell.url:
        return Recipe(kind="none", notes=("The server was started by somebody else: its command line is not known.",))
    notes = []
    if cause and cause.id.startswith(NEEDS_WEIGHTS):
        notes.append(f"{cause.id} lies in the real checkpoint or its size: the canary may well start.")
    draft = cell.speculative.model if cell.speculative else None
    if draft:
        notes.append(f"The draft model {draft} is not replaced: it must be at hand.")
    if (case.canary_made or {}).get("weights") == "stored" or case.model_config is None:
        if case.model_config is None:
            notes.append(f"The geometry of {cell.model} is not known here: the speaking canary stands in for it.")
        return Recipe(kind="speaking", notes=tuple(notes))
    return _like(case, case.model_config, notes)


def _like(case: Case, config: Mapping[str, Any], notes: list[str]) -> Recipe:
    cell = case.cell
    quant = families.family(cell.quantization) or "bf16"
    if quant not in QUANTS:
        notes.append(f"The canary builder writes no {quant}: bf16 stands in, and its kernels differ.")
        quant = "bf16"
    mtp = bool(cell.speculative and cell.speculative.method in ("mtp", "nextn"))
    stages = cell.parallelism.pp
    layers = max(4, 2 * stages) if stages > 1 else None
    try:
        cut.cut(dict(config), layers=layers, mtp=mtp)
    except UsageError as problem:
        notes.append(f"No canary like {cell.model} ({problem.message}): the speaking canary stands in for it.")
        return Recipe(kind="speaking", notes=tuple(notes))
    numbers = case.verdict.phase in (Phase.CANARY, Phase.SANITY)
    kept = {key: value for key, value in config.items() if key not in ("_name_or_path", "auto_map")}
    return Recipe(
        kind="like", quant=quant, layers=layers, mtp=mtp, golden=numbers, config=kept, notes=tuple(notes)
    )  # fmt: skip


def portable(case: Case) -> Cell:
    """The case's cell over the canary, without paths of this machine: `python` is whoever runs it."""
    cell = case.cell
    ran_by = case.launch.get("launcher") or ("docker" if cell.image and not cell.python else "process")
    cause = case.verdict.cause
    keep = cause is not None and cause.id.startswith("max-model-len")
    length = cell.max_model_len if keep else min(cell.max_model_len or _MAX_LEN, _MAX_LEN)
    return replace(
        cell,
        model=MODEL,
        python=None,
        name=None,
        url=None,
        launcher="docker" if ran_by == "docker" else "process",
        image=case.image if ran_by == "docker" else None,
        command=tuple(_placeholder(word, cell) for word in cell.command),
        max_model_len=None if cell.engine == "command" and cell.max_model_len is None else length,
    )


def _placeholder(word: str, cell: Cell) -> str:
    """An interpreter written as a path is the reader's own; the model's folder is the canary."""
    if word == cell.model and word.startswith(("/", "./", "~")):
        return "{model}"
    name = PurePath(word).name
    return "{python}" if word.startswith(("/", "~")) and name.rstrip("0123456789.") == "python" else word


def canary_arguments(recipe: Recipe, config: str, out: str) -> list[str]:
    """Arguments of `sweeper canary` that make this canary."""
    if recipe.kind == "speaking":
        return ["unpack", out]
    words = ["build", "--like", config, "--quant", recipe.quant, "--out", out]
    words += ["--layers", str(recipe.layers)] if recipe.layers else []
    words += ["--mtp"] if recipe.mtp else []
    return words + ([] if recipe.golden else ["--no-golden"])
