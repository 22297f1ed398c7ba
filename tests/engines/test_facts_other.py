"""Facts from SGLang, llama.cpp and transformers logs. Excerpts are written for these tests."""

from __future__ import annotations

from sweeper.engines.facts import read_facts

SGLANG = [
    "[2026-11-20 10:00:00] server_args=ServerArgs(model_path='m', tp_size=4, pp_size=1, dp_size=1, ep_size=4, "
    "dtype='auto', quantization='modelopt_fp4', context_length=8192, moe_runner_backend='auto', "
    "speculative_moe_runner_backend='triton', attention_backend='flashinfer', disable_cuda_graph=False, "
    "speculative_algorithm='NEXTN')",
    "[2026-11-20 10:00:01 TP0] Use flashinfer_cutlass as MoE runner backend on SM110/SM120 for modelopt_fp4 "
    "(trtllm-gen MoE kernels are SM100-only)",
    "[2026-11-20 10:00:20 TP0] Load weight begin. avail mem=94.10 GB",
    "[2026-11-20 10:01:20 TP0] Load weight end. elapsed=60.25 s, type=Model, quant=modelopt_fp4, avail mem=38.0 GB, "
    "mem usage=56.12 GB.",
    "[2026-11-20 10:01:22 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 250000, K size: 3.50 GB, V size: "
    "3.50 GB",
    "[2026-11-20 10:01:40 TP0] Capture target decode CUDA graph end. elapsed=12.50 s, mem usage=1.20 GB.",
    "[2026-11-20 10:01:41 TP0] max_total_num_tokens=250000, chunked_prefill_size=8192, max_running_requests=64, "
    "context_len=8192",
    "[2026-11-20 10:02:00] The server is fired up and ready to roll!",
    "[2026-11-20 10:02:10 TP0] Decode batch, #running-req: 1, #token: 100, token usage: 0.00, accept len: 2.60, "
    "accept rate: 0.53, cuda graph: True, gen throughput (token/s): 120.50, #queue-req: 0",
]


def test_sglang_shows_resolved_backend_sizes_memory_and_acceptance() -> None:
    facts = read_facts(SGLANG)
    assert (facts.engine, facts.moe_backend, facts.draft_moe_backend) == ("sglang", "flashinfer_cutlass", "triton")
    assert (facts.tp, facts.ep, facts.attention_backend) == (4, 4, "FLASHINFER".lower())
    assert (facts.weights_load_s, facts.weights_gib) == (60.25, 56.12)
    assert (facts.kv_cache_tokens, facts.kv_cache_gib, facts.max_model_len) == (250000, 7.0, 8192)
    assert (facts.cuda_graphs, facts.graph_capture_s) == (True, 12.5)
    assert (facts.acceptance_length, facts.acceptance_rate) == (2.6, 0.53)
    assert facts.generation_tok_s == (120.5,)
    assert facts.ready
    phases = {phase.name: phase.seconds for phase in facts.boot}
    assert phases["total"] == 120
    assert phases["load weights"] == 60.25


def test_sglang_that_still_says_auto_proves_no_backend() -> None:
    assert read_facts(SGLANG[:1]).moe_backend is None


def test_sglang_replacing_an_explicit_backend_is_told() -> None:
    args = SGLANG[0].replace("moe_runner_backend='auto', spec", "moe_runner_backend='cutlass', spec")
    facts = read_facts(
        [args, "[2026-11-20 10:00:02] Fp8MoEMethod has no cutlass path; using triton for its fp8 experts."]
    )
    assert facts.moe_backend == "triton"
    assert "cutlass" in facts.fallbacks[0]


def test_sglang_gpt_oss_on_sm120_runs_flashinfers_mxfp4() -> None:
    line = (
        "Detected SM120 and MXFP4 quantization format for GPT-OSS model, enabling FlashInfer CUTLASS MXFP4 MOE kernel."
    )
    assert read_facts([line]).moe_backend == "flashinfer_mxfp4"


def test_llama_server_shows_format_offload_cache_and_rate() -> None:
    facts = read_facts(
        [
            "build: 6345 (0a1b2c3d) with cc (Debian) for x86_64-linux-gnu",
            "llama_model_loader: loaded meta data with 41 key-value pairs and 579 tensors from m.gguf",
            "print_info: file type   = Q4_K - Medium",
            "load_tensors: offloaded 47/49 layers to GPU",
            "load_tensors:        CUDA0 model buffer size =  8192.00 MiB",
            "load_tensors:   CPU_Mapped model buffer size =   417.66 MiB",
            "llama_context: n_ctx         = 32768",
            "llama_context: flash_attn    = enabled",
            "llama_kv_cache: size = 1024.00 MiB ( 32768 cells,  48 layers,  1/1 seqs), K (f16): 512.00 MiB",
            "main: server is listening on http://127.0.0.1:8080 - starting the main loop",
            "prompt eval time =     100.00 ms /   221 tokens (    0.45 ms per token,  2210.00 tokens per second)",
            "       eval time =     828.09 ms /    23 tokens (   36.00 ms per token,    27.77 tokens per second)",
            "draft acceptance rate = 0.57576 (  171 accepted /   297 generated)",
        ]
    )
    assert (facts.engine, facts.engine_version, facts.quantization) == ("llamacpp", "b6345", "Q4_K - Medium")
    assert (facts.weights_gib, facts.kv_cache_gib, facts.kv_cache_tokens) == (8.0, 1.0, 32768)
    assert (facts.max_model_len, facts.attention_backend) == (32768, "flash_attn")
    assert facts.generation_tok_s == (27.77,)
    assert facts.acceptance_rate == 0.57576
    assert facts.fallbacks == ("2 of 49 layers stay on the CPU",)
    assert facts.ready


def test_llama_server_without_a_gpu_counts_host_memory() -> None:
    facts = read_facts(["load_tensors:   CPU_Mapped model buffer size =  2048.00 MiB"])
    assert facts.weights_gib == 2.0


def test_older_llama_servers_are_read_too() -> None:
    facts = read_facts(
        [
            "0.00.012.345 I build: 4567 (0a1b2c3d) with cc (Debian) for x86_64-linux-gnu",
            "llama_init_from_model: n_ctx         = 512",
            "llama_init_from_model: flash_attn    = 0",
            "llama_new_context_with_model: KV self size  =  512.00 MiB, K (f16):  256.00 MiB, V (f16):  256.00 MiB",
        ]
    )
    assert (facts.engine_version, facts.max_model_len, facts.kv_cache_gib) == ("b4567", 512, 0.5)
    assert facts.attention_backend == "no_flash_attn"


def test_transformers_serve_tells_its_version_in_a_hint() -> None:
    facts = read_facts(
        [
            "Hint: A new version of transformers (5.23.0) is available! You are using version 5.19.0.",
            "The fast path is not available because one of the required library is not installed. Falling back to "
            "torch implementation.",
            "INFO:     Application startup complete.",
        ]
    )
    assert (facts.engine, facts.engine_version) == ("transformers", "5.19.0")
    assert "torch implementation" in facts.fallbacks[0]
    assert facts.ready
