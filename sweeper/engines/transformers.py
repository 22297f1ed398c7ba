"""`transformers serve` with bitsandbytes. Flags as in transformers/cli/serve.py of 5.19.

One process holds the whole model: no tensor, pipeline or expert parallelism, no kernel choice for experts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from sweeper.core import families
from sweeper.core.arguments import flag_in, runs_on_cpu
from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell, LaunchPlan, Unsupported
from sweeper.engines import common
from sweeper.engines.facts import read_facts
from sweeper.engines.refusal import Refused

DEFAULT_IMAGE = "sweeper/transformers-bnb:latest"
_BNB = ("bnb-4bit", "bnb-8bit")
_DTYPES = {"fp16": "float16", "float16": "float16", "bf16": "bfloat16", "bfloat16": "bfloat16"}


class TransformersEngine:
    """The model is preloaded and answers under the name it was given: a path stays a path."""

    name = "transformers"

    def plan(self, cell: Cell) -> LaunchPlan | Unsupported:
        if cell.url:
            return common.attached(cell, None)
        try:
            _refuse(cell)
            argv = (*_program(cell), "serve", common.model_argument(cell), *_flags(cell), *cell.extra_args)
        except Refused as refusal:
            return Unsupported(reason=str(refusal))
        inside = common.in_container(cell)
        gpus = common.gpus_needed(cell)
        return LaunchPlan(
            argv=argv,
            env=common.environment(cell, {}),
            served_model=common.model_argument(cell),
            image=(cell.image or DEFAULT_IMAGE) if inside else None,
            entrypoint=() if inside else None,
            mounts=common.mounts(cell),
            gpus=gpus,
            ipc_host=inside and gpus > 0,
            metrics_path=None,
        )

    def effective(self, lines: Iterable[str]) -> EffectiveConfig:
        return read_facts(lines)


def _program(cell: Cell) -> tuple[str, ...]:
    """The console script beside the interpreter: transformers has no module to run with -m."""
    if common.in_container(cell) or cell.python is None:
        return ("transformers",)
    folder = PurePosixPath(cell.python).parent
    return (str(folder / "transformers") if str(folder) != "." else "transformers",)


def _refuse(cell: Cell) -> None:
    p = cell.parallelism
    if p.world_size > 1 or p.ep > 1:
        raise Refused(f"transformers serve runs one process: {p.label()} has no spelling")
    if cell.moe_backend != "auto":
        raise Refused(f"transformers serve has no MoE backend to choose: {cell.moe_backend}")
    if cell.linear_backend is not None:
        raise Refused(f"transformers serve has no linear backend to choose: {cell.linear_backend}")
    if cell.speculative is not None:
        raise Refused(f"transformers serve does not speculate: {cell.speculative.label()}")


def _flags(cell: Cell) -> list[str]:
    argv = ["--port", "{port}", "--host", "{host}", "--default-seed", "0", "--log-level", "info"]
    if cell.attention_backend and cell.attention_backend.lower() != "auto":
        argv += ["--attn-implementation", cell.attention_backend.lower()]
    wanted = cell.quantization_flag or families.family(cell.quantization) or ""
    if wanted in _BNB:
        argv += ["--quantization", wanted]
    elif cell.quantization_flag:
        raise Refused(f"transformers serve takes --quantization {' or '.join(_BNB)}, not {cell.quantization_flag}")
    dtype = _DTYPES.get((cell.quantization or "").lower())
    if dtype and not flag_in(cell.extra_args, "--dtype"):
        argv += ["--dtype", dtype]
    if not flag_in(cell.extra_args, "--device"):
        argv += ["--device", "cpu" if runs_on_cpu(cell) else "auto"]
    return argv
