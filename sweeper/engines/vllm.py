"""vLLM 0.9 to 0.33: a cell as a server command.

The kernel selector moved from environment variables (until 0.16) to flags (from 0.17); see `vllm_flags`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sweeper.core import families
from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell, LaunchPlan, Speculative, Unsupported
from sweeper.core.versions import Version, parse, written
from sweeper.engines import common, vllm_flags
from sweeper.engines.facts import read_facts
from sweeper.engines.refusal import Refused

MODULE = "vllm.entrypoints.openai.api_server"
DEFAULT_IMAGE = "vllm/vllm-openai:v0.33.0"
SHM_BYTES = 8 * 1024**3

_DEFAULT_ENV = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_COLOR": "0"}


class VllmEngine:
    """`python -m vllm.entrypoints.openai.api_server`, the same natively and in a container."""

    name = "vllm"

    def plan(self, cell: Cell) -> LaunchPlan | Unsupported:
        if cell.url:
            return common.attached(cell, "/metrics")
        version = parse(cell.engine_version)
        try:
            flags, env = _selectors(cell, version)
            argv = (*_server(cell), *flags, *_parallel(cell), *_speculative(cell, version), *cell.extra_args)
        except Refused as refusal:
            return Unsupported(reason=str(refusal))
        return common.module_plan(cell, MODULE, argv, {**_DEFAULT_ENV, **env}, image=DEFAULT_IMAGE, shm_bytes=SHM_BYTES)

    def effective(self, lines: Iterable[str]) -> EffectiveConfig:
        return read_facts(lines)


def _server(cell: Cell) -> list[str]:
    """Model, address, and the pins that keep cells comparable. The author's extra arguments come later and win."""
    argv = ["--model", common.model_argument(cell), "--port", "{port}", "--host", "{host}"]
    argv += ["--served-model-name", common.served_name(cell.model), "--seed", "0", "--no-enable-prefix-caching"]
    if cell.max_model_len is not None:
        argv += ["--max-model-len", str(cell.max_model_len)]
    if cell.gpu_memory_utilization is not None:
        argv += ["--gpu-memory-utilization", f"{cell.gpu_memory_utilization:g}"]
    if cell.quantization_flag:
        argv += ["--quantization", cell.quantization_flag]
    return argv


def _selectors(cell: Cell, version: Version) -> tuple[list[str], dict[str, str]]:
    """Kernel choices as (flags, environment). Raises Refused."""
    flags: list[str] = []
    env: dict[str, str] = {}
    for more_flags, more_env in (_moe(cell, version), _linear(cell, version), _attention(cell, version)):
        flags += more_flags
        env |= more_env
    return flags, env


def _moe(cell: Cell, version: Version) -> tuple[list[str], dict[str, str]]:
    value = vllm_flags.normal(cell.moe_backend)
    if value == "auto":
        return [], {}
    if version >= vllm_flags.MOE_FLAG_SINCE:
        return ["--moe-backend", value], {}
    kind = families.table(cell.quantization)
    env = vllm_flags.moe_environment(kind, value, version) if kind else None
    if env is None:
        what = f"{kind} checkpoints" if kind else "a checkpoint of unknown quantization (set `quantization`)"
        raise Refused(
            f"vLLM {written(version)} has no --moe-backend (it came with 0.17) "
            f"and no environment variable that selects {value} for {what}"
        )
    return [], env


def _linear(cell: Cell, version: Version) -> tuple[list[str], dict[str, str]]:
    if cell.linear_backend is None or vllm_flags.normal(cell.linear_backend) == "auto":
        return [], {}
    value = vllm_flags.normal(cell.linear_backend)
    if version >= vllm_flags.LINEAR_FLAG_SINCE:
        return ["--linear-backend", value], {}
    env = vllm_flags.linear_environment(families.table(cell.quantization) or "", value, version)
    if env is None:
        raise Refused(
            f"vLLM {written(version)} has no --linear-backend (it came with 0.22) and no variable that selects {value}"
        )
    return [], env


def _attention(cell: Cell, version: Version) -> tuple[list[str], dict[str, str]]:
    if cell.attention_backend is None or cell.attention_backend.lower() == "auto":
        return [], {}
    value = cell.attention_backend.upper().replace("-", "_")
    if version >= vllm_flags.ATTENTION_FLAG_SINCE:
        return ["--attention-backend", value], {}
    return [], {"VLLM_ATTENTION_BACKEND": value}


def _parallel(cell: Cell) -> list[str]:
    p = cell.parallelism
    argv: list[str] = []
    for flag, value in (
        ("--tensor-parallel-size", p.tp),
        ("--pipeline-parallel-size", p.pp),
        ("--data-parallel-size", p.dp),
    ):
        if value > 1:
            argv += [flag, str(value)]
    if p.ep > 1:
        if p.ep != p.tp * p.dp:
            raise Refused(
                f"vLLM spreads experts over all tp x dp = {p.tp * p.dp} ranks or over none; ep={p.ep} has no spelling"
            )
        argv.append("--enable-expert-parallel")
    return argv


_METHODS = {"draft": "draft_model", "nextn": "mtp", "eagle-3": "eagle3"}


def _speculative(cell: Cell, version: Version) -> list[str]:
    spec = cell.speculative
    if spec is None:
        return []
    config: dict[str, Any] = {"method": _method(cell, spec, version), "num_speculative_tokens": spec.tokens}
    if spec.model:
        config["model"] = common.draft_argument(cell, spec.model)
    if spec.moe_backend:
        if version < vllm_flags.DRAFT_MOE_SINCE:
            raise Refused(
                f"vLLM {written(version)} gives the draft the target's MoE backend; "
                "`moe_backend` inside --speculative-config came with 0.19.1"
            )
        config["moe_backend"] = vllm_flags.normal(spec.moe_backend)
    config |= {key: _json_value(value) for key, value in spec.extra}
    return ["--speculative-config", json.dumps(config, separators=(",", ":"))]


_MTP_BEFORE_0_11 = (
    ("deepseek", "deepseek_mtp"),
    ("glm-4", "glm4_moe_mtp"),
    ("ernie", "ernie_mtp"),
    ("mimo", "mimo_mtp"),
)


def _method(cell: Cell, spec: Speculative, version: Version) -> str:
    method = _METHODS.get(spec.method, spec.method)
    if method != "mtp" or version >= vllm_flags.MTP_NAME_SINCE or dict(spec.extra).get("method"):
        return method
    for part, name in _MTP_BEFORE_0_11:
        if part in cell.model.lower():
            return name
    raise Refused(
        f"vLLM {written(version)} has one MTP method per model family (`mtp` came with 0.11); "
        "name it in `speculative.extra.method`"
    )


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
