"""What vLLM 0.9 to 0.33 writes about itself, and FlashInfer's autotuner inside it.

Messages as in the released wheels: vllm/model_executor/layers/fused_moe/oracle/*.py, vllm/v1/worker/*.py,
vllm/v1/engine/core.py, vllm/v1/metrics/loggers.py; flashinfer/autotuner.py.
"""

from __future__ import annotations

import re

from sweeper.engines import names
from sweeper.engines.facts_state import Facts, Rule, number, rule

_Match = re.Match[str]


def _throughput(facts: Facts, found: _Match, line_no: int) -> None:
    facts.rate(float(found.group(1)), line_no)


_LENGTH = re.compile(r"Mean acceptance length: ([\d.]+)")
_ACCEPTED = re.compile(r"Accepted: (\d+) tokens, Drafted: (\d+) tokens")
_RATE = re.compile(r"[Dd]raft acceptance rate: ([\d.]+)%")


def _acceptance(facts: Facts, found: _Match, line_no: int) -> None:
    text = found.string
    length, counts, rate = _LENGTH.search(text), _ACCEPTED.search(text), _RATE.search(text)
    if counts and int(counts.group(2)) == 0:
        return
    if length:
        facts.last("acceptance_length", float(length.group(1)), line_no)
    if counts:
        facts.last("acceptance_rate", int(counts.group(1)) / int(counts.group(2)), line_no)
    elif rate:
        facts.last("acceptance_rate", float(rate.group(1)) / 100.0, line_no)


def _jit(facts: Facts, found: _Match, line_no: int) -> None:
    facts.jit_lines += 1
    facts.jit_watched = True
    facts.evidence.setdefault("jit_in_run", line_no)
    if "fused_moe_kernel" in found.group(0):
        facts.first("_triton_moe_ran", True, line_no)
        facts.first("_fused_moe_kernel", True, line_no)


def _jit_watched(facts: Facts, found: _Match, line_no: int) -> None:
    facts.jit_watched = True


def _moe(facts: Facts, found: _Match, line_no: int) -> None:
    facts.mark("kernels")
    raw, kind = found.group("b").strip(), found.group("q")
    if (raw, kind) not in [(old, of) for old, of, _ in facts.moe]:
        facts.moe.append((raw, kind, line_no))


def _moe_pre_oracle(facts: Facts, found: _Match, line_no: int) -> None:
    kind = found.groupdict().get("q") or "?"
    if facts.values.get("engine") != "sglang" and not facts.moe:
        facts.moe.append((found.group("b").strip(), kind, line_no))


def _flashinfer_fp8(facts: Facts, found: _Match, line_no: int) -> None:
    facts.moe.append((f"FLASHINFER_{found.group('b').upper().replace('-', '')}", "Fp8", line_no))


def _attention(facts: Facts, found: _Match, line_no: int) -> None:
    name = names.attention(found.group("b"))
    if name not in [old for old, _ in facts.attention]:
        facts.attention.append((name, line_no))


def _linear(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("linear_backend", names.linear(found.group("b")), line_no)


def _version(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "vllm", line_no)
    facts.first("engine_version", found.group(1).lstrip("v"), line_no)
    facts.mark("start")


_CONFIG = (
    ("tp", re.compile(r"\btensor_parallel_size=(\d+)"), int),
    ("pp", re.compile(r"\bpipeline_parallel_size=(\d+)"), int),
    ("dp", re.compile(r"\bdata_parallel_size=(\d+)"), int),
    ("max_model_len", re.compile(r"\bmax_seq_len=(\d+)"), int),
    ("dtype", re.compile(r"\bdtype=(?:torch\.)?(\w+)"), str),
    ("speculative_method", re.compile(r"SpeculativeConfig\(method='?(\w+)"), str),
)
_QUANTIZATION = re.compile(r"\bquantization=(?:'?)([\w.-]+)")
_EAGER = re.compile(r"\benforce_eager=(True|False)")


def _config(facts: Facts, found: _Match, line_no: int) -> None:
    _version(facts, found, line_no)
    text = found.string
    for name, pattern, kind in _CONFIG:
        value = pattern.search(text)
        if value:
            facts.first(name, kind(value.group(1)), line_no)
    quantization = _QUANTIZATION.search(text)
    if quantization:
        facts.first("quantization", "none" if quantization[1] == "None" else quantization[1], line_no)
    eager = _EAGER.search(text)
    if eager and eager.group(1) == "True":
        facts.first("cuda_graphs", False, line_no)
    facts.mark("engine")


def _arguments(facts: Facts, found: _Match, line_no: int) -> None:
    """The arguments that are not defaults: they prove what was not switched on, too."""
    facts.mark("start")
    facts.first("_expert_parallel", bool(re.search(r"'enable_expert_parallel': True", found.string)), line_no)


def _rank(facts: Facts, found: _Match, line_no: int) -> None:
    for name in ("DP", "PP", "TP"):
        value = re.search(rf"\b{name} rank (\d+)", found.string)
        if value:
            facts.largest(f"_{name.lower()}_rank", int(value.group(1)), line_no)


def _expert_parallel(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("ep", int(found.group(1)), line_no)


def _load(facts: Facts, found: _Match, line_no: int) -> None:
    facts.largest("weights_load_s", float(found.group(1)), line_no)
    facts.took("load weights", float(found.group(1)))


def _model_loaded(facts: Facts, found: _Match, line_no: int) -> None:
    facts.largest("weights_gib", float(found.group(1)), line_no)
    facts.mark("loaded")


def _kv_gib(facts: Facts, found: _Match, line_no: int) -> None:
    facts.smallest("kv_cache_gib", float(found.group(1)), line_no)
    facts.mark("profiled")


def _kv_tokens(facts: Facts, found: _Match, line_no: int) -> None:
    facts.smallest("kv_cache_tokens", number(found.group(1)), line_no)
    facts.mark("kv cache")


def _max_model_len(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("max_model_len", number(found.group(1)), line_no)


def _no_graphs(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("cuda_graphs", False, line_no)


def _graphs_done(facts: Facts, found: _Match, line_no: int) -> None:
    facts.last("cuda_graphs", True, line_no)
    facts.largest("graph_capture_s", float(found.group(1)), line_no)
    facts.took("capture graphs", float(found.group(1)))


def _compiled(facts: Facts, found: _Match, line_no: int) -> None:
    facts.took("compile", float(found.group(1)))


def _engine_ready(facts: Facts, found: _Match, line_no: int) -> None:
    facts.took("profile, KV cache, warm-up", float(found.group(1)))
    facts.mark("engine ready")


def _server(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "vllm", line_no)
    facts.mark("server")


def _ready(facts: Facts, found: _Match, line_no: int) -> None:
    facts.ready = True
    facts.evidence.setdefault("ready", line_no)
    facts.mark("ready")


def _runner_v1(facts: Facts, found: _Match, line_no: int) -> None:
    facts.last("model_runner", "V1", line_no)
    facts.fell_back("Model Runner V2 replaced by the V1 model runner", line_no)


def _runner_v2(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("model_runner", "V2", line_no)


def _autotune(name: str) -> Rule:
    def apply(facts: Facts, found: _Match, line_no: int) -> None:
        facts.mark(name)
        if name == "autotuned":
            facts.first("_autotuned", True, line_no)

    ending = "starts" if name == "autotune" else "ends"
    return rule(f"Autotuning process {ending}", f"Autotuning process {ending}", apply)


def _skipped(facts: Facts, found: _Match, line_no: int) -> None:
    name = found.groupdict().get("op") or "?"
    if "fused_moe" in name or "_moe" in name:
        # The autotuner times an operation by calling it: its name proves which MoE kernel the warm-up ran.
        facts.first("_tuned_moe", "flashinfer_trtllm" if "trtllm_" in name else "flashinfer_cutlass", line_no)
    count = int(found.groupdict().get("n") or 1)
    if found.groupdict().get("n"):
        # Each rank and each problem size prints its own summary: the largest of an operation, not their sum.
        facts.skipped[name] = max(count, facts.skipped.get(name, 0))
        total = found.groupdict().get("of")
        if total:
            facts.tuned[name] = max(int(total), facts.tuned.get(name, 0))
    else:
        facts.skipped[name] = facts.skipped.get(name, 0) + count
    facts.evidence.setdefault("autotune_skipped", line_no)


def _triton_ran(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("_triton_moe_ran", True, line_no)
    if "default MoE" in found.group(0):
        facts.fell_back("no tuned Triton MoE configuration for this GPU and shape: the default one is used", line_no)


def _emulated(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("_emulated", True, line_no)


def _deepgemm_off(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("_deepgemm_off", found.group(1).strip(" ."), line_no)


def _fell_back(literal: str, pattern: str, sentence: str) -> Rule:
    def apply(facts: Facts, found: _Match, line_no: int) -> None:
        facts.fell_back(found.expand(sentence), line_no)

    return rule(literal, pattern, apply)


HOT = (
    rule("Avg generation throughput", r"Avg generation throughput: ([\d.]+) tok", _throughput),
    rule("SpecDecoding metrics", r"SpecDecoding metrics: ", _acceptance),
    rule("during inference: ", r"(?:compilation|autotuning|benchmark)\w* during inference: .{0,120}", _jit),
)
"""Lines that a healthy server repeats for hours."""

RULES = (
    *HOT,
    rule(
        "MoE backend",
        r"^Using '?(?P<b>[A-Za-z0-9_ ]+?)'? "
        r"(?P<q>NvFp4|Fp8|FP8|Unquantized|Mxfp4|MxFp8|WNA16|W4A8(?: Int8)?) MoE backend",
        _moe,
    ),
    rule("EmulationTritonExperts", r"^Using \w*EmulationTritonExperts M[Oo]E backend", _emulated),
    rule("MoE backend", r"^Using (?P<b>[A-Z]\w+?)(?:Experts)? (?P<q>Humming) MoE backend", _moe_pre_oracle),
    _fell_back(
        "Falling back to '",
        r"No Mxfp4 MoE backend supports activation=(\S+) .*Falling back to '([^']+)' with BF16",
        r"MXFP4 MoE with activation \1 replaced by \2 with BF16 activations",
    ),
    rule("backend for NvFp4 MoE", r"^Using (?P<b>[\w ]+?) backend for (?P<q>NvFp4) MoE", _moe_pre_oracle),
    rule("backend for FP8 MoE", r"^Using (?P<b>[\w ]+?) backend for (?P<q>FP8) MoE", _moe_pre_oracle),
    rule("FusedMoE.", r"^Using (?P<b>Cutlass|Marlin|FlashInfer kernels) for (?P<q>\w*FusedMoE)\.", _moe_pre_oracle),
    rule(
        "FlashInfer FP8 MoE", r"^Using FlashInfer FP8 MoE (?P<b>CUTLASS|TRTLLM|TensorRT-LLM) backend", _flashinfer_fp8
    ),
    rule("attention backend out of", r"^Using (?P<b>[\w. ]+?) attention backend out of", _attention),
    rule("AttentionBackendEnum.", r"^Using (?P<b>AttentionBackendEnum\.\w+) backend", _attention),
    rule("backend on V1 engine", r"^Using (?P<b>[\w ]+?) backend on V1 engine", _attention),
    rule(
        " GEMM",
        r"^Using (?P<b>\w+) for (?:NVFP4|MXFP4|MXFP8|NvFp4) GEMM",
        _linear,
    ),
    rule("Kernel for ", r"^Selected (?P<b>\w+Kernel) for \w+", _linear),
    rule("engine (v", r"^Initializing a V\d LLM engine \(v([\w.+\-]+)\)", _config),
    rule("version ", r"(?:^|[█▀▄ ]|vLLM API server |vLLM server )version (\d+\.\d+[\w.+\-]*)", _version),
    rule("non-default args: ", r"^non-default args: ", _arguments),
    rule("is assigned as DP rank", r"rank \d+ in world size \d+ is assigned", _rank),
    rule("Expert parallelism is enabled", r"\[EP Rank \d+/(\d+)\] Expert parallelism is enabled", _expert_parallel),
    rule("Loading weights took", r"Loading weights took ([\d.]+) seconds", _load),
    rule("Model loading took", r"Model loading took ([\d.]+) Gi?B", _model_loaded),
    rule("Available KV cache memory", r"Available KV cache memory: (-?[\d.]+) GiB", _kv_gib),
    rule("GiB for KV cache on node", r"Explicitly set \(([\d.]+)/", _kv_gib),
    rule("KV cache size: ", r"KV cache size: ([\d,]+) tokens", _kv_tokens),
    rule("Using max model len", r"^Using max model len ([\d,]+)", _max_model_len),
    rule("Cudagraph is disabled", r"Cudagraph is disabled", _no_graphs),
    rule("Enforce eager set", r"^Enforce eager set", _no_graphs),
    rule("Graph capturing finished", r"Graph capturing finished in ([\d.]+) secs", _graphs_done),
    rule("torch.compile took", r"torch\.compile took ([\d.]+) s", _compiled),
    rule("init engine (profile", r"^init engine \(.*?\) took ([\d.]+) s", _engine_ready),
    rule("Starting vLLM ", r"^Starting vLLM (?:API )?server", _server),
    rule("Application startup complete", r"Application startup complete", _ready),
    rule("using the V1 model runner", r"Model Runner V2", _runner_v1),
    rule("Model Runner V2", r"Using (?:the )?(?:Model Runner V2|V2 [Mm]odel [Rr]unner)", _runner_v2),
    _autotune("autotune"),
    _autotune("autotuned"),
    rule(
        "unsupported tactic(s)",
        r"Skipped (?P<n>\d+)(?:(?:/| of | out of )(?P<of>\d+))? unsupported tactic\(s\) for (?P<op>[\w:.\-]+)",
        _skipped,
    ),
    rule("Skipping tactic", r"\[Auto[Tt]uner\]:? Skipping tactic (?P<op>[\w:.<>\-]+)", _skipped),
    rule("Kernel JIT monitor activated", r"Kernel JIT monitor activated", _jit_watched),
    rule("default MoE config", r"Using default MoE config", _triton_ran),
    rule("for MoE layer.", r"Using configuration from \S+ for MoE layer", _triton_ran),
    rule("DeepGemm disabled", r"DeepGemm disabled(?: for|: | due to)? ?(.{0,80}?)(?:\. M:|\. |$)", _deepgemm_off),
    _fell_back(
        "slow and unoptimized emulation",
        r"(\w+) linear falling back to the slow",
        r"\1 linear layers replaced by the emulation backend",
    ),
    _fell_back(
        "has no kernel for this linear",
        r"--linear-backend=(\S+) has no kernel for this linear layer type",
        r"--linear-backend \1 has no kernel for some linear layers: another one runs there",
    ),
    _fell_back(
        "FlashInfer kernels are disabled",
        r"FlashInfer kernels are disabled: (.{0,120}?)(?:\.|$)",
        r"FlashInfer dropped from the candidates: \1",
    ),
    _fell_back(
        "Custom allreduce is disabled",
        r"Custom allreduce is disabled because (.{0,100}?)(?:\.|$)",
        r"custom all-reduce replaced by NCCL: \1",
    ),
    _fell_back(
        "Unknown vLLM environment variable",
        r"Unknown vLLM environment variable detected: (\S+)",
        r"environment variable \1 is unknown to this version and was ignored",
    ),
    _fell_back(
        "OOM detected, falling back to default tactic",
        r"OOM detected, falling back to default tactic",
        "autotuner ran out of memory: default tactic kept",
    ),
)
