"""The matrix that would test a claim, as plain data, with what had to be assumed in words.

A decisive condition that nobody stated becomes alternatives side by side, so that the run answers whichever way the
claim was meant. Everything else that is open takes this tool's default and is named in `assumed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweeper.core.claims import Claim, Conditions
from sweeper.core.presets import PRESETS
from sweeper.core.roofline import Board

ENGINES = ("vllm", "sglang", "transformers")
IMAGES = {"vllm": ("vllm/vllm-openai:v{}", "0.19.1"), "sglang": ("lmsysorg/sglang:v{}", "0.5.23")}
"""Pattern of the published image, and the version taken where the claim names none: that of matrices/qwen3.5-*."""
BACKENDS = {"vllm": ["auto", "marlin", "flashinfer_cutlass"], "sglang": ["auto", "flashinfer_cutlass"]}
"""Candidates for NVFP4 experts where the claim names no backend."""
NEWER = {("vllm", "b12x"): "0.33.0"}
"""Backends that the usual version does not have."""
FORKS = {("sglang", "b12x"): "--moe-runner-backend"}
"""Backends that no release of the engine has: the flag is handed through, the image has to be named."""
_BY_HAND = {
    "os": "the operating system", "thinking": "thinking", "prefix_cache": "the prefix cache", "p2p": "P2P",
    "all_reduce": "the all-reduce", "mig": "MIG", "power_limit_w": "the power limit", "prompts": "the prompts",
    "other": "also",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPlan:
    """`matrix`: keys of a matrix file in order; `assumed` and `by_hand`: sentences for its comments."""

    matrix: dict[str, Any]
    assumed: tuple[str, ...]
    by_hand: tuple[str, ...]


def plan(claim: Claim, board: Board | None) -> TestPlan:
    """The matrix for one claim. `board`: constants of its GPU, None when it is not known."""
    assumed: list[str] = []
    matrix: dict[str, Any] = {"title": f"Test of {claim.id}: {claim.text()} ({claim.kind})"}
    matrix |= _server(claim, assumed)
    matrix |= _axes(claim.conditions, assumed)
    matrix["workloads"] = [_workload(claim, assumed)]
    matrix["policy"] = {"launches": 3}
    matrix["hardware"] = _hardware(claim.conditions, board, assumed)
    by_hand = [f"{text}: {_said(getattr(claim.conditions, name))}" for name, text in _BY_HAND.items()
               if getattr(claim.conditions, name) is not None]  # fmt: skip
    if claim.kind in ("score", "ratio", "compute", "count", "memory"):
        by_hand.append(f"the run starts and measures the server; a {claim.kind} in {claim.unit} is read beside it")
    return TestPlan(matrix=matrix, assumed=tuple(assumed), by_hand=tuple(by_hand))


def _said(value: object) -> str:
    return {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else f"{value}"


def _server(claim: Claim, assumed: list[str]) -> dict[str, Any]:
    c = claim.conditions
    engine = c.engine or "vllm"
    if c.engine is None:
        assumed.append("engine: not stated; vllm is taken")
    out: dict[str, Any] = {"engine": engine if engine in ENGINES else "command"}
    if engine in IMAGES:
        pattern, default = IMAGES[engine]
        default = NEWER.get((engine, c.moe_backend or ""), default)
        version = c.engine_version or default
        out["engine_version"] = version
        out["image"] = c.image or pattern.format(version.partition("rc")[0])
        if c.engine_version is None:
            assumed.append(f"engine_version: not stated; {default} is taken")
        elif "rc" in version and not c.image:
            assumed.append(f"image: of the release after {version}")
    elif engine == "transformers":
        out["python"] = "${SWEEPER_TRANSFORMERS_PYTHON:-.sweeper/engines/transformers/bin/python}"
    else:
        program = {"ds4": "ds4-server", "llamacpp": "llama-server"}.get(engine, "server")
        out["command"] = [
            f"${{SWEEPER_SERVER:-./{program}}}",
            "--model",
            "{model}",
            "--host",
            "{host}",
            "--port",
            "{port}",
        ]
        assumed.append(f"command: how {engine} is started; adapt it")
    if c.model is None:
        assumed.append("model: not stated; name one in SWEEPER_MODEL")
    out["model"] = f"${{SWEEPER_MODEL:-{c.model or './model'}}}"
    if c.quantization:
        out["quantization"] = c.quantization
        if c.quantization.startswith("bnb-"):
            out["quantization_flag"] = c.quantization
    extra = ["--kv-cache-dtype", c.kv_cache] if c.kv_cache and c.kv_cache.startswith("fp8") else []
    flag = FORKS.get((engine, c.moe_backend or ""))
    if flag and c.moe_backend:
        extra += [flag, c.moe_backend]
        out["image"] = f"${{SWEEPER_IMAGE:-{out['image']}}}"
        assumed.append(f"image: no release of {engine} has {c.moe_backend}; name the fork's in SWEEPER_IMAGE")
    return out | ({"extra_args": extra} if extra else {})


def _axes(c: Conditions, assumed: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"parallelism": _parallelism(c, assumed)}
    axes: dict[str, Any] = {}
    engine = c.engine or "vllm"
    if c.attention_backend:
        out["attention_backend"] = c.attention_backend
    if (engine, c.moe_backend or "") in FORKS:
        pass
    elif c.moe_backend:
        out["moe_backend"] = c.moe_backend
    elif c.quantization == "nvfp4" and engine in BACKENDS:
        axes["moe_backend"] = BACKENDS[engine]
        assumed.append("moe_backend: not stated; each candidate is measured")
    choices = _speculation(c, assumed)
    if len(choices) == 1:
        out |= {"speculative": choices[0]} if choices[0] != "none" else {}
    else:
        axes["speculative"] = choices
    return out | ({"axes": axes} if axes else {})


def _parallelism(c: Conditions, assumed: list[str]) -> dict[str, int]:
    known = {name: getattr(c, name) for name in ("tp", "pp", "dp", "ep") if getattr(c, name) is not None}
    if not {"tp", "pp", "dp"} & set(known):
        known["tp"] = c.gpus or 1
        if (c.gpus or 2) > 1:
            assumed.append(f"parallelism: not stated; tp {known['tp']} is taken")
    return known


def _speculation(c: Conditions, assumed: list[str]) -> list[Any]:
    if c.speculative == "none":
        return ["none"]
    if c.speculative is None:
        assumed.append("speculative: not stated; measured without and with three drafts a step")
        return ["none", {"method": "mtp", "tokens": 3}]
    method = {"nextn": "mtp"}.get(c.speculative, c.speculative)
    extra = (
        {"model": "${SWEEPER_DRAFT_MODEL:-./draft-model}"}
        if method in ("eagle", "eagle3", "dflash", "draft_model")
        else {}
    )
    if c.draft_tokens:
        return [{"method": method, "tokens": c.draft_tokens, **extra}]
    assumed.append("draft tokens: not stated; 2, 3 and 4 a step are measured")
    return [{"method": method, "tokens": tokens, **extra} for tokens in (2, 3, 4)]


def _workload(claim: Claim, assumed: list[str]) -> dict[str, Any]:
    c = claim.conditions
    preset = c.preset if c.preset is not None and c.preset in PRESETS else _preset_for(claim)
    base = PRESETS[preset].workloads[0]
    osl = c.osl or base.osl
    isl = c.isl or (max(1, c.context - osl // 2) if c.context else base.isl)
    if c.preset not in PRESETS:
        assumed += [f"{name}: not stated; {value} is taken" for name, value, stated in
                    (("isl", isl, c.isl or c.context), ("osl", osl, c.osl)) if not stated]  # fmt: skip
    if c.concurrency is None:
        assumed.append("concurrency: not stated; 1 is taken")
    return {"preset": preset, "isl": isl, "osl": osl, "concurrency": [c.concurrency or 1]}


def _preset_for(claim: Claim) -> str:
    if claim.kind == "energy":
        return "energy-e2e"
    closed = claim.kind in ("end-to-end", "total") or (
        claim.kind == "latency" and (claim.conditions.concurrency or 1) > 1
    )
    return "serving-16x64x256" if closed else "sustained-decode"


def _hardware(c: Conditions, board: Board | None, assumed: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"gpu": c.gpu} if c.gpu else {}
    if c.gpu is None:
        assumed.append("hardware: not stated")
    out["count"] = c.gpus or 1
    if board is not None:
        link = "nvlink" if (board.link or "").startswith("nvlink") else board.link
        extra = {"memory_gib": board.memory_gib, "sm": board.sm, "bandwidth_gb_s": board.bandwidth_gb_s, "link": link}
        out |= {key: value for key, value in extra.items() if value is not None}
    limit = c.power_limit_w or (board.power_limit_w if board else None)
    return out | ({"power_limit_w": limit} if limit else {})
