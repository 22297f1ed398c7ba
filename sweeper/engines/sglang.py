"""SGLang 0.5.x: a cell as `python -m sglang.launch_server`. Flags as in sglang/srt/server_args.py of 0.5.23."""

from __future__ import annotations

from collections.abc import Iterable

from sweeper.core import families
from sweeper.core.arguments import flag_in, runs_on_cpu
from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell, LaunchPlan, Speculative, Unsupported
from sweeper.engines import common
from sweeper.engines.facts import read_facts
from sweeper.engines.refusal import Refused

MODULE = "sglang.launch_server"
DEFAULT_IMAGE = "lmsysorg/sglang:v0.5.23"
SHM_BYTES = 32 * 1024**3

_ALGORITHMS = {
    "mtp": "NEXTN",
    "nextn": "NEXTN",
    "eagle": "EAGLE",
    "eagle3": "EAGLE3",
    "draft_model": "STANDALONE",
    "ngram": "NGRAM",
    "dflash": "DFLASH",
}


class SglangEngine:
    """Same command natively and in a container, where no entry point is relied on."""

    name = "sglang"

    def plan(self, cell: Cell) -> LaunchPlan | Unsupported:
        if cell.url:
            return common.attached(cell, "/metrics")
        try:
            argv = (*_server(cell), *_kernels(cell), *_parallel(cell), *_speculative(cell), *cell.extra_args)
        except Refused as refusal:
            return Unsupported(reason=str(refusal))
        return common.module_plan(
            cell, MODULE, argv, {"SGLANG_DISABLE_USAGE_STATS": "1"}, image=DEFAULT_IMAGE, shm_bytes=SHM_BYTES
        )

    def effective(self, lines: Iterable[str]) -> EffectiveConfig:
        return read_facts(lines)


def _server(cell: Cell) -> list[str]:
    """The radix cache is off: a repeated prompt must cost the same in every cell. Metrics are off by default there."""
    argv = ["--model-path", common.model_argument(cell), "--port", "{port}", "--host", "{host}"]
    argv += ["--served-model-name", common.served_name(cell.model), "--random-seed", "0"]
    argv += ["--disable-radix-cache", "--enable-metrics"]
    if cell.max_model_len is not None:
        argv += ["--context-length", str(cell.max_model_len)]
    if cell.gpu_memory_utilization is not None:
        argv += ["--mem-fraction-static", f"{cell.gpu_memory_utilization:g}"]
    if cell.quantization_flag:
        argv += ["--quantization", cell.quantization_flag]
    if runs_on_cpu(cell) and not flag_in(cell.extra_args, "--device"):
        argv += ["--device", "cpu"]
    return argv


def _kernels(cell: Cell) -> list[str]:
    argv: list[str] = []
    moe = cell.moe_backend.strip().lower().replace("-", "_")
    if moe != "auto":
        argv += ["--moe-runner-backend", moe]
    if cell.attention_backend and cell.attention_backend.lower() != "auto":
        argv += ["--attention-backend", cell.attention_backend.lower()]
    if cell.linear_backend and cell.linear_backend.lower() != "auto":
        kind = families.table(cell.quantization)
        flag = {"nvfp4": "--fp4-gemm-backend", "fp8": "--fp8-gemm-backend"}.get(kind or "")
        if flag is None:
            raise Refused(
                "SGLang chooses linear kernels by --fp4-gemm-backend or --fp8-gemm-backend only: "
                f"there is none for {kind or 'an unknown quantization (set `quantization`)'}"
            )
        argv += [flag, cell.linear_backend.lower().replace("-", "_")]
    return argv


def _parallel(cell: Cell) -> list[str]:
    p = cell.parallelism
    argv: list[str] = []
    for flag, value in (("--tp-size", p.tp), ("--pp-size", p.pp), ("--dp-size", p.dp), ("--ep-size", p.ep)):
        if value > 1:
            argv += [flag, str(value)]
    return argv


def _speculative(cell: Cell) -> list[str]:
    spec = cell.speculative
    if spec is None:
        return []
    algorithm = _ALGORITHMS.get(spec.method)
    if algorithm is None:
        raise Refused(f"SGLang has no speculation called {spec.method}: there are {', '.join(_ALGORITHMS)}")
    argv = ["--speculative-algorithm", algorithm, *_draft_shape(spec, algorithm)]
    if spec.model:
        argv += ["--speculative-draft-model-path", common.draft_argument(cell, spec.model)]
    if spec.moe_backend:
        argv += ["--speculative-moe-runner-backend", spec.moe_backend.lower().replace("-", "_")]
    for key, value in spec.extra:
        flag = "--speculative-" + key.replace("_", "-").removeprefix("speculative-")
        argv = _set(argv, flag, value)
    return argv


def _draft_shape(spec: Speculative, algorithm: str) -> list[str]:
    """A chain of N drafted tokens: N steps, one candidate each, N + 1 tokens verified. All three or none."""
    if algorithm in ("NGRAM", "DFLASH"):
        return ["--speculative-num-draft-tokens", str(spec.tokens)]
    return [
        "--speculative-num-steps",
        str(spec.tokens),
        "--speculative-eagle-topk",
        "1",
        "--speculative-num-draft-tokens",
        str(spec.tokens + 1),
    ]


def _set(argv: list[str], flag: str, value: str) -> list[str]:
    """`flag value`, in place where the flag is there already."""
    if flag in argv:
        place = argv.index(flag) + 1
        return [*argv[:place], value, *argv[place + 1 :]]
    return [*argv, flag, value]
