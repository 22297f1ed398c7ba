"""Throughput and peak memory of `diagnose` on a generated log, beside `grep -F -f` with the same literals.

    python benchmarks/diagnose_speed.py [--gib 1] [--keep FILE]

The log is what a long-lived server leaves: a boot, a cause early (a worker dies of an illegal memory access, the front
end goes on answering with errors), then access lines, throughput lines, JIT warnings, NCCL and autotuner chatter,
repeated. Both programs read the same file from the page cache, one after the other, each in a process of its own.
"""

# ruff: noqa: E501 (log lines are as long as they are)
from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOOT = """\
(APIServer pid=41) INFO 11-02 07:00:01 [api_utils.py:339]   version 0.24.0
(EngineCore pid=97) INFO 11-02 07:00:09 [core.py:114] Initializing a V1 LLM engine (v0.24.0) with config: model='m', tensor_parallel_size=4
(Worker_TP0 pid=201) INFO 11-02 07:00:31 [nvfp4.py:224] Using 'MARLIN' NvFp4 MoE backend out of potential backends: ['FLASHINFER_CUTLASS', 'MARLIN'].
(Worker_TP0 pid=201) INFO 11-02 07:01:12 [default_loader.py:430] Loading weights took 38.17 seconds
(EngineCore pid=97) INFO 11-02 07:01:52 [kv_cache_utils.py:2146] GPU KV cache size: 613,152 tokens
(APIServer pid=41) INFO:     Application startup complete.
"""
CAUSE = """\
(Worker_TP{rank} pid=20{rank}) ERROR 11-02 07:09:30 [multiproc_executor.py:1063] torch.AcceleratorError: CUDA error: an illegal memory access was encountered
(EngineCore pid=97) ERROR 11-02 07:09:30 [core.py:1240] EngineCore encountered a fatal error.
"""


def noise(draw: random.Random) -> str:
    """One line of a healthy server."""
    kind = draw.random()
    clock = f"{draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}"
    rank = draw.randrange(4)
    if kind < 0.62:
        path = draw.choice(("/v1/completions", "/v1/chat/completions", "/v1/chat/completions", "/health", "/metrics"))
        verb = "GET" if path in ("/health", "/metrics") else "POST"
        return f'(APIServer pid=41) INFO:     10.0.{rank}.{draw.randrange(255)}:{draw.randrange(30000, 60000)} - "{verb} {path} HTTP/1.1" 200 OK'
    if kind < 0.72:
        return (
            f"(APIServer pid=41) INFO 11-02 {clock} [loggers.py:273] Engine 000: Avg prompt throughput: {draw.random() * 900:.1f} tokens/s, "
            f"Avg generation throughput: {draw.random() * 400:.1f} tokens/s, Running: {draw.randrange(64)} reqs, Waiting: 0 reqs, "
            f"GPU KV cache usage: {draw.random() * 90:.1f}%, Prefix cache hit rate: {draw.random() * 40:.1f}%"
        )
    if kind < 0.80:
        return f"(APIServer pid=41) INFO 11-02 {clock} [logger.py:40] Received request cmpl-{draw.getrandbits(64):016x}: params: SamplingParams(n=1, temperature=0.7, max_tokens={draw.randrange(2048)}), lora_request: None."
    if kind < 0.86:
        return f"node7:20{rank}:31{rank} [{rank}] NCCL INFO Channel {draw.randrange(32):02}/0 : {rank}[{rank}] -> {(rank + 1) % 4}[{(rank + 1) % 4}] via SHM/direct/direct"
    if kind < 0.92:
        return f"(Worker_TP{rank} pid=20{rank}) DEBUG 11-02 {clock} [gpu_model_runner.py:2{draw.randrange(999):03}] step {draw.randrange(10**6)} batch {draw.randrange(64)} tokens {draw.randrange(8192)}"
    if kind < 0.96:
        return f"(Worker_TP{rank} pid=20{rank}) WARNING 11-02 {clock} [jit_monitor.py:106] Triton kernel JIT compilation during inference: kernel_{draw.randrange(40)}. This causes a latency spike."
    if kind < 0.98:
        return f"(Worker_TP{rank} pid=20{rank}) 2026-11-02 {clock},120 - WARNING - autotuner.py:512 - flashinfer.jit: [Autotuner]: Skipping tactic {draw.randrange(90)}, due to failure while profiling"
    return f"(EngineCore pid=97) INFO 11-02 {clock} [shm_broadcast.py:681] No available shared memory broadcast block found in 60 seconds."


def write_log(path: Path, size: int) -> None:
    """A block of 16 MiB of fresh lines, repeated up to `size` bytes."""
    draw = random.Random(7)
    rows: list[str] = []
    length = 0
    while length < 16 << 20:
        row = noise(draw)
        rows.append(row)
        length += len(row) + 1
    block = ("\n".join(rows) + "\n").encode()
    with path.open("wb") as out:
        out.write(BOOT.encode())
        out.write(block[: block.index(b"\n", 1 << 20) + 1])
        out.write("".join(CAUSE.format(rank=rank) for rank in range(4)).encode())
        while out.tell() < size:
            out.write(block)


def peak_mib() -> float:
    """Peak resident memory of this program. Not `ru_maxrss`: that one is inherited over fork and exec."""
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith("VmHWM:"):
            return int(row.split()[1]) / 1024
    return float("nan")


def child(path: str) -> None:
    """One diagnosis in this process; prints what it took as JSON."""
    from sweeper.diagnosis.diagnose import diagnose_source
    from sweeper.diagnosis.signature import load_signatures
    from sweeper.diagnosis.sources import open_source

    signatures = load_signatures()
    begin, cpu = time.perf_counter(), time.process_time()
    diagnosis = diagnose_source(open_source(path), signatures)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_s": cpu,
                "peak_mib": peak_mib(),
                "verdict": diagnosis.verdict,
                "cause": diagnosis.cause.id if diagnosis.cause else None,
                "lines": diagnosis.lines,
            }
        )
    )


def main() -> None:
    """Generates, measures, prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, help="use or create this file and leave it")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    from sweeper.diagnosis.matcher import LogMatcher
    from sweeper.diagnosis.signature import load_signatures

    folder = Path(tempfile.mkdtemp(prefix="diagnose-speed-"))
    try:
        log = args.keep or folder / "server.log"
        if not log.exists():
            write_log(log, int(args.gib * (1 << 30)))
        literals = LogMatcher(load_signatures()).literals
        wanted = folder / "literals"
        wanted.write_bytes(b"\n".join(literals) + b"\n")
        megabytes = log.stat().st_size / 1e6
        ours = json.loads(
            subprocess.run([sys.executable, __file__, "--child", str(log)], check=True, capture_output=True).stdout
        )
        begin, children = time.perf_counter(), sum(os.times()[2:4])
        counted = subprocess.run(
            ["grep", "-F", "-c", "-f", str(wanted), str(log)],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
        ).stdout.strip()
        grep_s = time.perf_counter() - begin
        grep_cpu_s = sum(os.times()[2:4]) - children
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"log            {megabytes:,.0f} MB, {ours['lines']:,} lines, {len(literals)} literals")
    print(
        f"diagnose       {megabytes / ours['seconds']:,.0f} MB/s, peak {ours['peak_mib']:.0f} MiB, {ours['verdict']} {ours['cause']}"
    )
    print(f"grep -F -c -f  {megabytes / grep_s:,.0f} MB/s ({counted} lines matched)")
    print(f"ratio          {grep_s / ours['seconds']:.2f} of grep's rate")
    print(
        f"per CPU second {megabytes / ours['cpu_s']:,.0f} MB ours, {megabytes / grep_cpu_s:,.0f} MB grep (what a busy machine leaves of it aside)"
    )


if __name__ == "__main__":
    main()
