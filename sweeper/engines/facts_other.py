"""What SGLang 0.5, `transformers serve`, llama.cpp's server and TensorRT-LLM write about themselves.

Messages as in sglang/srt (server_args.py, model_executor, managers/scheduler*), llama.cpp (src/llama-model.cpp,
src/llama-kv-cache*.cpp, tools/server), transformers/cli/serve.py.
"""

from __future__ import annotations

import re

from sweeper.engines.facts_state import Facts, Rule, rule

_Match = re.Match[str]


def _sgl_decode(facts: Facts, found: _Match, line_no: int) -> None:
    facts.rate(float(found.group("rate")), line_no)
    text = found.string
    length = re.search(r"accept len: ([\d.]+)", text)
    rate = re.search(r"accept rate: ([\d.]+)", text)
    if length:
        facts.last("acceptance_length", float(length.group(1)), line_no)
    if rate:
        facts.last("acceptance_rate", float(rate.group(1)), line_no)
    graph = re.search(r"cuda graph: (True|False)", text)
    if graph:
        facts.last("cuda_graphs", graph.group(1) == "True", line_no)


_SGL_ARGS = (
    ("tp", r"\btp_size=(\d+)", int),
    ("pp", r"\bpp_size=(\d+)", int),
    ("dp", r"\bdp_size=(\d+)", int),
    ("ep", r"\bep_size=(\d+)", int),
    ("dtype", r"\bdtype='(\w+)'", str),
    ("quantization", r"\bquantization='([\w-]+)'", str),
    ("max_model_len", r"\bcontext_length=(\d+)", int),
    ("speculative_method", r"\bspeculative_algorithm='(\w+)'", str),
    ("engine_version", r"\bversion='([\d.]+\w*)'", str),
)
_SGL_CHOICES = (
    ("moe", r"\bmoe_runner_backend='(\w+)'"),
    ("draft_moe_backend", r"\bspeculative_moe_runner_backend='(\w+)'"),
    ("attention", r"\battention_backend='(\w+)'"),
    ("linear_backend", r"\bfp4_gemm_runner_backend='(\w+)'"),
)


def _sgl_args(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "sglang", line_no)
    facts.mark("start")
    text = found.string
    for name, pattern, kind in _SGL_ARGS:
        value = re.search(pattern, text)
        if value:
            facts.first(name, kind(value.group(1)), line_no)
    if "disable_cuda_graph=True" in text:
        facts.first("cuda_graphs", False, line_no)
    for name, pattern in _SGL_CHOICES:
        value = re.search(r"(?<!_)" + pattern, text)
        if not value or value.group(1) == "auto":
            continue
        if name == "moe":
            facts.moe.append((value.group(1), "server_args", line_no))
        elif name == "attention":
            facts.attention.append((value.group(1), line_no))
        else:
            facts.first(name, value.group(1), line_no)


def _sgl_moe(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "sglang", line_no)
    facts.moe.insert(0, (found.group("b"), found.groupdict().get("q") or "?", line_no))


def _sgl_mxfp4(facts: Facts, found: _Match, line_no: int) -> None:
    facts.moe.insert(0, ("flashinfer_mxfp4", "mxfp4", line_no))


def _sgl_fp8_triton(facts: Facts, found: _Match, line_no: int) -> None:
    facts.moe.insert(0, ("triton", "fp8", line_no))
    facts.fell_back(f"MoE backend {found.group(1)} has no FP8 path: triton runs instead", line_no)


def _sgl_attention(facts: Facts, found: _Match, line_no: int) -> None:
    facts.attention.append((found.group(1), line_no))


def _sgl_load_begin(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "sglang", line_no)
    facts.mark("engine")


def _sgl_load_end(facts: Facts, found: _Match, line_no: int) -> None:
    text = found.string
    facts.first("engine", "sglang", line_no)
    elapsed = re.search(r"elapsed=([\d.]+) ?s", text)
    if elapsed:
        facts.largest("weights_load_s", float(elapsed.group(1)), line_no)
        facts.took("load weights", float(elapsed.group(1)))
    used = re.search(r"mem usage=([\d.]+) ?GB", text)
    if used:
        facts.largest("weights_gib", float(used.group(1)), line_no)
    dtype = re.search(r"dtype=(?:torch\.)?(\w+)", text)
    if dtype:
        facts.first("dtype", dtype.group(1), line_no)
    quant = re.search(r"quant(?:ization)?=(\w+)", text)
    if quant and quant.group(1) != "None":
        facts.first("quantization", quant.group(1), line_no)
    facts.mark("loaded")


def _sgl_kv(facts: Facts, found: _Match, line_no: int) -> None:
    facts.smallest("kv_cache_tokens", int(found.group(1)), line_no)
    sizes = [float(size) for size in re.findall(r"(?:K|V|KV) size: ([\d.]+) GB", found.string)]
    if sizes:
        facts.smallest("kv_cache_gib", round(sum(sizes), 3), line_no)
    facts.mark("kv cache")


def _sgl_context(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("kv_cache_tokens", int(found.group(1)), line_no)
    context = re.search(r"context_len=(\d+)", found.string)
    if context:
        facts.first("max_model_len", int(context.group(1)), line_no)


def _sgl_graphs(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("cuda_graphs", True, line_no)
    facts.largest("graph_capture_s", float(found.group(1)), line_no)
    facts.took("capture graphs", float(found.group(1)))


def _sgl_ready(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "sglang", line_no)
    facts.ready = True
    facts.evidence.setdefault("ready", line_no)
    facts.mark("server")


def _llama_build(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "llamacpp", line_no)
    facts.first("engine_version", f"b{found.group(1)}", line_no)
    facts.mark("start")


def _llama(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "llamacpp", line_no)
    facts.mark("engine")


def _llama_quant(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "llamacpp", line_no)
    facts.first("quantization", found.group(1).strip(), line_no)


def _llama_offload(facts: Facts, found: _Match, line_no: int) -> None:
    done, total = int(found.group(1)), int(found.group(2))
    if done < total:
        facts.fell_back(f"{total - done} of {total} layers stay on the CPU", line_no)


def _llama_weights(facts: Facts, found: _Match, line_no: int) -> None:
    if not found.group(1).startswith(("CPU", "CUDA_Host")):
        facts.largest("weights_gib", round(float(found.group(2)) / 1024, 3), line_no)
    else:
        facts.first("_host_weights_gib", round(float(found.group(2)) / 1024, 3), line_no)
    facts.mark("loaded")


def _llama_kv(facts: Facts, found: _Match, line_no: int) -> None:
    facts.last("kv_cache_gib", round(float(found.group(1)) / 1024, 3), line_no)
    cells = re.search(r"\(\s*(\d+) cells", found.string)
    if cells:
        facts.last("kv_cache_tokens", int(cells.group(1)), line_no)
    facts.mark("kv cache")


def _llama_context(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("max_model_len", int(found.group(1)), line_no)


def _llama_flash(facts: Facts, found: _Match, line_no: int) -> None:
    on = found.group(1) in ("1", "enabled", "auto")
    facts.attention.append(("flash_attn" if on else "no_flash_attn", line_no))


def _llama_rate(facts: Facts, found: _Match, line_no: int) -> None:
    if "prompt eval" not in found.string:
        facts.rate(float(found.group(1)), line_no)


def _llama_draft(facts: Facts, found: _Match, line_no: int) -> None:
    facts.last("acceptance_rate", float(found.group(1)), line_no)


def _llama_ready(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "llamacpp", line_no)
    facts.ready = True
    facts.evidence.setdefault("ready", line_no)
    facts.mark("server")


def _transformers_version(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "transformers", line_no)
    facts.first("engine_version", found.group(1), line_no)
    facts.mark("start")


def _torch_path(facts: Facts, found: _Match, line_no: int) -> None:
    facts.fell_back("a fast kernel is not installed: the plain torch implementation runs", line_no)


def _trt_version(facts: Facts, found: _Match, line_no: int) -> None:
    facts.first("engine", "trtllm", line_no)
    facts.first("engine_version", found.group(1), line_no)
    facts.mark("start")


RULES: tuple[Rule, ...] = (
    rule("gen throughput (token/s)", r"^Decode batch.*gen throughput \(token/s\): (?P<rate>[\d.]+)", _sgl_decode),
    rule("tokens per second)", r"\beval time =.*,\s+([\d.]+) tokens per second\)", _llama_rate),
    rule("draft acceptance rate = ", r"draft acceptance rate = ([\d.]+)", _llama_draft),
    rule("server_args=", r"server_args=ServerArgs\(", _sgl_args),
    rule("as MoE runner backend", r"Use (?P<b>\w+) as MoE runner backend(?:.* for (?P<q>\w+))?", _sgl_moe),
    rule("CUTLASS MXFP4 MOE kernel", r"Detected SM1\d0 and MXFP4 quantization format", _sgl_mxfp4),
    rule("using triton for its fp8 experts", r"Fp8MoEMethod has no (\S+) path", _sgl_fp8_triton),
    rule(
        "Attention backend not ",
        r"Attention backend not (?:explicitly specified|set)\. Use (\w+) backend",
        _sgl_attention,
    ),
    rule("Load weight begin", r"^Load weight begin", _sgl_load_begin),
    rule("Load weight end", r"^Load weight end", _sgl_load_end),
    rule("KV Cache is allocated", r"KV Cache is allocated\..*#tokens: (\d+)", _sgl_kv),
    rule("max_total_num_tokens=", r"max_total_num_tokens=(\d+), ", _sgl_context),
    rule("raph end. Time elapsed", r"(?i)capture .*cuda graph end\. time elapsed: ([\d.]+) s", _sgl_graphs),
    rule("raph end. elapsed", r"(?i)capture .*cuda graph end\. elapsed=([\d.]+)", _sgl_graphs),
    rule("The server is fired up", r"The server is fired up", _sgl_ready),
    rule("build: ", r"\bbuild: (\d+) \([0-9a-f]{6,}\)", _llama_build),
    rule("llama_model_loader: ", r"llama_model_loader: loaded meta data", _llama),
    rule("file type   = ", r"print_info: file type\s+= (.+)", _llama_quant),
    rule("layers to GPU", r"offloaded (\d+)/(\d+) layers to GPU", _llama_offload),
    rule("model buffer size", r"load_tensors:\s+(\S+) model buffer size =\s+([\d.]+) MiB", _llama_weights),
    rule("llama_kv_cache", r"llama_kv_cache\w*: (?:KV self )?size\s*=\s+([\d.]+) MiB", _llama_kv),
    rule("KV self size", r"KV self size\s*=\s+([\d.]+) MiB", _llama_kv),
    rule("n_ctx         = ", r"llama_\w+: n_ctx\s+= (\d+)", _llama_context),
    rule("flash_attn ", r"(?:llama_context|llama_init_from_model): flash_attn\s+= (\w+)", _llama_flash),
    rule("server is listening on", r"server is listening on", _llama_ready),
    rule("A new version of transformers", r"You are using version (\d+(?:\.\d+)+)", _transformers_version),
    rule("You are using version ", r"You are using version (\d+(?:\.\d+)+\w*)", _transformers_version),
    rule("Falling back to torch implementation", r"fast path is not available", _torch_path),
    rule("TensorRT LLM version", r"TensorRT LLM version: ([\w.]+)", _trt_version),
    rule("TensorRT-LLM version", r"TensorRT-LLM version: ([\w.]+)", _trt_version),
)
