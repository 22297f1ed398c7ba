"""The canaries of a sweep: which checkpoint stands for a cell's model, and how a server over it is checked."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sweeper.canary.formats import FORMATS
from sweeper.core import observations as seen
from sweeper.core.bounds import BUILD_S
from sweeper.core.canaries import BAD
from sweeper.core.errors import EnvironmentNotReady, SweeperError, UsageError
from sweeper.core.families import family
from sweeper.core.values import Cell, Matrix
from sweeper.core.verdicts import Cause
from sweeper.preflight import Preflight

Say = Callable[[str], None]

BATCHES = (1, 8)
"""Alone and side by side: a kernel that breaks above some batch size has another code path there."""


def make_preflight(matrix: Matrix, say: Say) -> Preflight | None:
    """The canary that the policy names, or one built like each model where torch is at hand; None: not wanted.

    Raises UsageError where the named canary cannot be used: a preflight that checks nothing must not pass for one.
    """
    policy = matrix.policy
    if policy.canary:
        folder, quant = named(Path(policy.canary))
        return Preflight(
            canary_of=lambda cell: _fits(cell, folder, quant),
            check=check_canary,
            cells=matrix.cells,
            like_the_model=False,
        )
    return Preflight(canary_of=Builder(say), check=check_canary, cells=matrix.cells) if policy.preflight else None


def named(folder: Path) -> tuple[Path, str | None]:
    """The folder and its number format. Raises UsageError where it is no canary with golden vectors."""
    from sweeper.canary.golden import find

    hint = f"Build one: sweeper canary build --like speaking --out {folder}"
    if not (folder / "config.json").is_file():
        raise UsageError(f"policy.canary: no checkpoint at {folder}", hint=hint)
    if find(folder) is None:
        raise UsageError(f"policy.canary: {folder} has no golden vectors beside it", hint=hint)
    quant = _json(folder / "sweeper_canary.json").get("quant")
    return folder, str(quant) if quant else None


def _fits(cell: Cell, folder: Path, quant: str | None) -> Path | str:
    """A canary in another number format runs other kernels. A quantization flag quantises it like the model."""
    if quant and cell.quantization and family(quant) != family(cell.quantization) and not cell.quantization_flag:
        return f"the canary is {quant}, the cell {cell.quantization}: other kernels"
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What tells one canary of a sweep from another."""

    model: str
    quant: str
    layers: int | None
    mtp: bool

    def folder(self) -> str:
        parts = [self.model.strip("/"), self.quant, f"{self.layers}-layers" if self.layers else "", "mtp" * self.mtp]
        name = "-".join(filter(None, parts))
        return "".join(char if char.isalnum() or char in ".-" else "-" for char in name).lstrip(".-")


class Builder:
    """One canary per model, number format, least depth and need for an MTP head; kept between sweeps.

    It is built here where torch is at hand, else by the cell's own interpreter, which has it for the engine.
    """

    def __init__(self, say: Say, root: Path = Path(".sweeper/canaries")) -> None:
        self._say, self._root = say, root
        self._built: dict[_Wanted, Path | str] = {}

    def __call__(self, cell: Cell) -> Path | str:
        spec, stages = cell.speculative, cell.parallelism.pp
        quant = _stored_as(cell)
        if quant not in FORMATS:
            return f"the model is stored as {quant}, a format that no canary is built in: other kernels"
        wanted = _Wanted(
            model=cell.model,
            quant=quant,
            layers=max(4, 2 * stages) if stages > 1 else None,
            mtp=spec is not None and ("mtp" in spec.method or spec.method == "nextn") and not spec.model,
        )
        if wanted not in self._built:
            self._built[wanted] = self._build(wanted, cell.python)
        return self._built[wanted]

    def _build(self, wanted: _Wanted, python: str | None) -> Path | str:
        from sweeper.canary.golden import find

        out = self._root / wanted.folder()
        if find(out) is not None:
            return out
        # Without golden vectors it is what an interrupted build of an earlier version left.
        shutil.rmtree(out, ignore_errors=True)
        what = f"{wanted.model} ({wanted.quant})"
        self._say(f"building a canary like {what} in {out}")
        try:
            _make(wanted, out, python)
        except Exception as error:  # whatever stops the canary must not stop the cell
            problem = error if isinstance(error, SweeperError) else SweeperError(f"{type(error).__name__}: {error}")
            why = f"no canary could be built: {problem.message}"
            hint = f" ({' '.join(problem.hint.split())})" if problem.hint else ""
            self._say(f"{what}: {why}{hint}; its cells are tried on the real weights at once")
            return why
        return out


def _make(wanted: _Wanted, out: Path, python: str | None) -> None:
    """Raises SweeperError."""
    from sweeper.canary.make import Order, make

    try:
        make(Order(like=wanted.model, quant=wanted.quant, out=out, layers=wanted.layers, mtp=wanted.mtp))
    except EnvironmentNotReady:
        if python is None:
            raise
        _make_with(python, wanted, out)


def _make_with(python: str, wanted: _Wanted, out: Path) -> None:
    """The same in another interpreter. Raises EnvironmentNotReady with the last thing it said."""
    from sweeper.bugreport.builder import NAME, pack
    from sweeper.canary import source

    with tempfile.TemporaryDirectory(prefix="sweeper-canary-") as scratch:
        builder, config = Path(scratch) / NAME, Path(scratch) / "config.json"
        builder.write_bytes(pack())
        config.write_text(json.dumps(source.resolve(wanted.model)[0]), "utf-8")
        argv = [python, str(builder), "build", "--like", str(config), "--quant", wanted.quant, "--out", str(out)]
        argv += ["--layers", str(wanted.layers)] if wanted.layers else []
        argv += ["--mtp"] if wanted.mtp else []
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_S)
        except (OSError, subprocess.SubprocessError) as problem:
            raise EnvironmentNotReady(f"{python} builds no canary: {problem}") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentNotReady(f"{python} builds no canary: {last.removeprefix('error: ')}")


def _stored_as(cell: Cell) -> str:
    """The checkpoint's format by the name of `canary build --quant`, or words for one that is not built.

    A flag such as `fp8` may quantise bf16 weights only when they are loaded. FP8 with one scale per tensor, AWQ and
    GPTQ have kernels that the formats of a canary do not reach, and lack some that those have.
    """
    config = _json(Path(cell.model) / "config.json")
    stored = config.get("quantization_config")
    if cell.quantization_flag and config and stored is None:
        return "bf16"
    told = family(cell.quantization) or "bf16"
    told = {"fp8-dynamic": "fp8"}.get(told, told)
    method = str(stored.get("quant_method", "")).lower() if isinstance(stored, dict) else ""
    if method in ("awq", "gptq", "auto-round", "bitsandbytes"):
        return method
    modelopt = _json(Path(cell.model) / "hf_quant_config.json").get("quantization")
    algorithm = str(modelopt.get("quant_algo", "")).upper() if isinstance(modelopt, dict) else ""
    if told == "fp8" and (method in ("fp8", "fbgemm_fp8", "modelopt") or algorithm == "FP8"):
        return "fp8 with one scale per tensor"
    return told


def check_canary(base_url: str, model: str, canary: Path) -> seen.CanaryChecked:
    """Prefill and decode against the golden vectors, over enough generations to see a 4 % failure rate."""
    from sweeper.canary.golden import find
    from sweeper.checking import CheckOptions, as_json, check_server
    from sweeper.core.numerics import MIN_GENERATIONS

    golden = find(canary)
    if golden is None:
        return seen.CanaryChecked(verdict="unchecked", figures={"why": f"{canary} has no golden vectors"})
    found = check_server(base_url, model, golden, CheckOptions(batches=BATCHES, generations=MIN_GENERATIONS))
    figures = as_json(found)
    cause = None
    if found.verdict in BAD:
        means = f"Against the golden vectors the numbers are {found.verdict}: {'; '.join(found.reasons)}."
        cause = Cause(id="garbage-output", means=means, try_=f"sweeper check URL --golden {golden}")
    kept = {
        "nll_shift": (figures["nll"] or {}).get("shift"),
        "kl_topk": figures["kl_topk"],
        "kl_typical": max((g.kl_typical for g in found.groups.values() if g.kl_typical is not None), default=None),
        "generations": found.generations,
        "degenerate": found.degenerate,
        "reasons": list(found.reasons),
        "weight_only": figures["weight_only"],
    }
    return seen.CanaryChecked(verdict=found.verdict, figures=kept, cause=cause)


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
