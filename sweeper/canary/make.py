"""One order for a canary, from `--like` to golden vectors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.canary import cut, source, tokenizer
from sweeper.canary.build import Progress, Recipe, write_checkpoint
from sweeper.core.errors import UsageError


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
    """Build the checkpoint and its golden file. Raises UsageError or BadFile; leaves `out` behind only when built."""
    config, own_weights = source.resolve(order.like)
    started = time.monotonic()
    if order.keep_weights:
        cutting = (order.layers, order.experts, order.vocab)
        if own_weights is None or any(value is not None for value in cutting) or order.mtp:
            raise UsageError(
                "--keep-weights: needs a model folder with bf16 weights, and no cut",
                hint="Leave out --layers, --experts, --vocab and --mtp",
            )
        shape = {k: v for k, v in config.items() if k not in ("quantization_config", "transformers_version")}
    else:
        if order.vocab is not None and order.vocab < tokenizer.TRAINED_SIZE:
            raise UsageError(f"--vocab {order.vocab}: at least {tokenizer.TRAINED_SIZE}")
        layers = order.layers or (int(config["num_hidden_layers"]) if order.like in ("tiny", "speaking") else None)
        shape = cut.cut(config, layers=layers, experts=order.experts, vocab=order.vocab, mtp=order.mtp)
    recipe = Recipe(
        config=shape, quant=order.quant, seed=order.seed, keep_weights=own_weights if order.keep_weights else None
    )
    size = write_checkpoint(recipe, order.out, progress)
    golden = _golden(order, progress) if order.golden else None
    return Made(
        out=order.out, quant=order.quant, model_type=shape["model_type"], layers=shape["num_hidden_layers"],
        experts=cut.expert_count(shape), weight_bytes=size, seconds=time.monotonic() - started,
        golden=golden[0] if golden else None, mean_nll=golden[1] if golden else None,
        uniform_nll=golden[2] if golden else None,
    )  # fmt: skip


def _golden(order: Order, progress: Progress) -> tuple[Path, float, float]:
    from sweeper.canary import record
    from sweeper.canary.golden import FILE_NAME, save

    progress("golden vectors: float32 reference")
    golden = record.record(order.out, progress=progress)
    path = order.out / FILE_NAME
    save(golden, path)
    return path, golden.mean_nll, golden.uniform_nll
