"""One order for a canary, from `--like` to golden vectors."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.canary import cut, needs, source, tokenizer
from sweeper.canary.build import Progress, Recipe, refuse_used, write_checkpoint
from sweeper.canary.golden import FILE_NAME, GoldenFile, save
from sweeper.core.errors import EnvironmentNotReady, SweeperError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for; None = the default of `cut.cut`."""

    like: str
    out: Path
    quant: str = "bf16"
    layers: int | None = None
    experts: int | None = None
    vocab: int | None = None
    mtp: bool = False
    seed: int = 0
    keep_weights: bool = False
    golden: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was built. `mean_nll` and `uniform_nll` in nats per token, None without golden vectors."""

    out: Path
    quant: str
    model_type: str
    layers: int
    experts: int
    weight_bytes: int
    seconds: float
    golden: Path | None
    mean_nll: float | None
    uniform_nll: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1, "out": str(self.out), "quant": self.quant, "model_type": self.model_type,
            "layers": self.layers, "experts": self.experts, "weight_bytes": self.weight_bytes,
            "seconds": round(self.seconds, 1), "golden": str(self.golden) if self.golden else None,
            "mean_nll": self.mean_nll, "uniform_nll": self.uniform_nll,
        }  # fmt: skip

    def to_text(self) -> str:
        lines = [
            f"{self.out}: {self.model_type}, {self.quant}, {self.layers} layers, {self.experts} experts, "
            f"{self.weight_bytes / 1e6:.1f} MB, {self.seconds:.0f} s"
        ]
        if self.golden and self.mean_nll is not None:
            lines.append(f"{self.golden}: mean NLL {self.mean_nll:.3f} nats (uniform {self.uniform_nll:.3f})")
        return "\n".join(lines) + "\n"


def make(order: Order, progress: Progress = lambda text: None) -> Made:
    """Build the checkpoint and its golden file. Leaves `out` behind only when all of it was built.

    Raises UsageError or BadFile for the order, EnvironmentNotReady where packages or room on the disk are missing.
    """
    recipe = _recipe(order)
    needs.require()
    refuse_used(order.out)
    started = time.monotonic()
    scratch = _scratch(order.out)
    part = scratch / order.out.name
    try:
        size = write_checkpoint(recipe, part, progress)
        if order.keep_weights and order.quant == "nvfp4":
            _calibrate(part, progress)
        golden = _golden(part, order, progress) if order.golden else None
        if order.out.exists():
            order.out.rmdir()
        part.rename(order.out)
    except SweeperError:
        raise
    except OSError as error:
        raise EnvironmentNotReady(f"{order.out}: cannot be written: {error.strerror or error}") from None
    except Exception as error:  # transformers and torch have no common class for a config they cannot build
        raise _no_model(order.like, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Made(
        out=order.out, quant=order.quant, model_type=recipe.config["model_type"],
        layers=recipe.config["num_hidden_layers"], experts=cut.expert_count(recipe.config), weight_bytes=size,
        seconds=time.monotonic() - started, golden=order.out / FILE_NAME if golden else None,
        mean_nll=golden.mean_nll if golden else None, uniform_nll=golden.uniform_nll if golden else None,
    )  # fmt: skip


def _scratch(out: Path) -> Path:
    """A folder beside `out`, so that what was built there can be renamed."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise EnvironmentNotReady(f"{out}: cannot be written: {error.strerror or error}") from None


def _recipe(order: Order) -> Recipe:
    """What the order asks for, checked before anything is imported or written."""
    config, own_weights = source.resolve(order.like)
    if order.keep_weights:
        cutting = (order.layers, order.experts, order.vocab)
        if own_weights is None or any(value is not None for value in cutting) or order.mtp:
            raise UsageError(
                "--keep-weights: needs a model folder with bf16 weights, and no cut",
                hint="Leave out --layers, --experts, --vocab and --mtp",
            )
        if config.get("quantization_config"):
            raise UsageError(
                f"--keep-weights: {order.like} is quantised already",
                hint="Its scales would be lost. Name a bf16 folder.",
            )
        shape = {k: v for k, v in config.items() if k != "transformers_version"}
        return Recipe(config=shape, quant=order.quant, seed=order.seed, keep_weights=own_weights)
    if order.vocab is not None and order.vocab < tokenizer.TRAINED_SIZE:
        raise UsageError(f"--vocab {order.vocab}: at least {tokenizer.TRAINED_SIZE}")
    layers = order.layers or (int(config["num_hidden_layers"]) if order.like in ("tiny", "speaking") else None)
    try:
        shape = cut.cut(config, layers=layers, experts=order.experts, vocab=order.vocab, mtp=order.mtp)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise _no_model(order.like, error) from error
    return Recipe(config=shape, quant=order.quant, seed=order.seed)


def _no_model(like: str, error: Exception) -> UsageError:
    lines = str(error).split("\n")
    told = " ".join(line.strip() for line in lines[:2])[:300]
    return UsageError(f"{like}: no checkpoint can be made of this config: {type(error).__name__}: {told}")


def _calibrate(folder: Path, progress: Progress) -> None:
    from sweeper.canary import calibrate, record

    progress("input scales: largest activations over the golden prompts")
    calibrate.calibrate(folder, [ids for _, _, ids in record.text_prompts(folder)])


def _golden(folder: Path, order: Order, progress: Progress) -> GoldenFile:
    from sweeper.canary import record

    progress("golden vectors: float32 reference")
    golden = record.record(folder, progress=progress)
    save(golden, folder / FILE_NAME)
    return golden
