"""Our load client beside others, against a server whose tokens leave at known times. One command, one table:

    python benchmarks/load_client/compare.py --vllm PYTHON --guidellm PROGRAM [--runs N]

PYTHON is an interpreter with vLLM (for `vllm bench serve`), PROGRAM a command line of the other tool; leave one out and
its row is left out. The server is compiled here with `cc` and pinned to the last core, each client to core 0. CPU is
that of the client's whole process tree from the first measured request to the last token; start-up is apart.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TTFT_MS = 50
SHAPES = {
    "16 x 200": (16, 200, 1, 800),
    "16 x 200, 3 a chunk": (16, 200, 3, 600),
    "64 x 100": (64, 100, 1, 400),
    "256 x 20": (256, 20, 1, 60),
}
"""Streams, tokens per second and stream, tokens per chunk, tokens per stream."""
WORDS = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

words = ["<unk>", "<s>", "</s>", "word", *(f"w{i}" for i in range(500))]
made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(sys.argv[1])
"""
VLLM = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass
class Seen:
    """What a tool said, and what it used. Milliseconds and tokens per second; None: it does not say."""

    decode: float | None = None
    output: float | None = None
    ttft: float | None = None
    itl: float | None = None
    chunk_gap: float | None = None
    true_ttft: float = 0.0
    cpu_us: float | None = None
    startup: float | None = None
    note: str = ""


@dataclass
class Tool:
    name: str
    command: Callable[[str, int, int, Path], list[str]]
    parse: Callable[[Path, str], Seen]
    env: dict[str, str] = field(default_factory=dict)


class Cpu:
    """Processor seconds of a process tree, sampled: (monotonic s, seconds)."""

    def __init__(self, root: int) -> None:
        self.root, self.seen, self.samples = root, {}, []  # type: ignore[var-annotated]
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        while not self.end.wait(0.1):
            for pid in self._tree(self.root):
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                self.seen[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            self.samples.append((time.monotonic(), sum(self.seen.values())))

    def _tree(self, pid: int) -> list[int]:
        found = [pid]
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                for child in (task / "children").read_text().split():
                    found += self._tree(int(child))
        except OSError:
            pass
        return found

    def at(self, when: float) -> float:
        before = [s for s in self.samples if s[0] <= when] or self.samples[:1]
        after = [s for s in self.samples if s[0] > when] or self.samples[-1:]
        (t0, c0), (t1, c1) = before[-1], after[0]
        return c0 if t1 <= t0 else c0 + (c1 - c0) * (when - t0) / (t1 - t0)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ours() -> Tool:
    def command(url: str, streams: int, osl: int, out: Path) -> list[str]:
        argv = [sys.executable, "-m", "sweeper", "bench", url, "--json", "--concurrency", str(streams), "--isl", "32"]
        return [*argv, "--osl", str(osl), "--warmup", "0", "--window", "60", "--metrics", "", "--no-energy"]

    def parse(out: Path, said: str) -> Seen:
        point = json.loads(said.splitlines()[-1])
        return Seen(
            decode=point["decode_tok_s"],
            output=point["serving_tok_s"],
            ttft=point["ttft_ms"]["mean"],
            itl=point["itl_ms"]["mean"],
            chunk_gap=point["chunk_gap_ms"]["mean"],
            note="client_bound" if point["client_bound"] else "",
        )

    return Tool("ours", command, parse)


def vllm(python: str, tokenizer: Path) -> Tool:
    def command(url: str, streams: int, osl: int, out: Path) -> list[str]:
        argv = [python, "-c", VLLM, "--backend", "openai", "--base-url", url, "--model", "scripted"]
        argv += ["--tokenizer", str(tokenizer), "--dataset-name", "random", "--random-input-len", "32"]
        argv += ["--random-output-len", str(osl), "--num-prompts", str(streams), "--max-concurrency", str(streams)]
        argv += ["--ignore-eos", "--disable-tqdm", "--save-result", "--result-dir", str(out)]
        return [*argv, "--result-filename", "result.json"]

    def parse(out: Path, said: str) -> Seen:
        got = json.loads((out / "result.json").read_text())
        return Seen(
            output=got["output_throughput"],
            ttft=got["mean_ttft_ms"],
            itl=got["mean_itl_ms"],
            note="ITL is the chunk gap",
        )

    return Tool("vllm bench serve", command, parse)


def guidellm(program: str, tokenizer: Path) -> Tool:
    def command(url: str, streams: int, osl: int, out: Path) -> list[str]:
        argv = [program, "run", "--backend", f"kind=openai_http,target={url},model=scripted"]
        argv += ["--profile", f"kind=concurrent,streams={streams}"]
        argv += ["--constraint", f"kind=max_requests,count={streams}"]
        argv += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"]
        argv += ["--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={osl}"]
        return [*argv, "--output", f"kind=json,path={out / 'result.json'}", "--disable-console"]

    def parse(out: Path, said: str) -> Seen:
        metrics = json.loads((out / "result.json").read_text())["benchmarks"][0]["metrics"]

        def mean(name: str) -> float | None:
            return metrics.get(name, {}).get("successful", {}).get("mean")

        return Seen(
            output=mean("output_tokens_per_second"),
            ttft=mean("time_to_first_token_ms"),
            itl=mean("inter_token_latency_ms"),
            note=f"TPOT {mean('time_per_output_token_ms') or 0:.2f} ms",
        )

    return Tool("guidellm", command, parse)


def run(tool: Tool, server: Path, shape: tuple[int, int, int, int], limit_s: float) -> Seen:
    """One tool against one fresh server."""
    streams, rate, chunk, osl = shape
    port, cores = free_port(), os.cpu_count() or 1
    url = f"http://127.0.0.1:{port}"
    argv = ["taskset", "-c", str(cores - 1), str(server), str(port), str(TTFT_MS), str(rate), str(chunk)]
    serving = subprocess.Popen(argv)
    time.sleep(0.3)
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            env = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", **tool.env}
            began = time.monotonic()
            client = subprocess.Popen(
                ["taskset", "-c", "0", *tool.command(url, streams, osl, out)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
            )  # fmt: skip
            cpu = Cpu(client.pid)
            try:
                said, complained = client.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                client.kill()
                client.communicate()
                return Seen(note=f"not done in {limit_s:.0f} s")
            finally:
                cpu.end.set()
                cpu.thread.join()
            try:
                seen = tool.parse(out, said)
            except (OSError, ValueError, KeyError, IndexError, StopIteration):
                return Seen(note="failed: " + (complained.strip().splitlines() or ["?"])[-1][:80])
        requests = get(f"{url}/truth")["requests"]
        main = [r for r in requests if r[3] == osl][-streams:]
        first, last = min(r[0] for r in main), max(r[2] for r in main)
        seen.true_ttft = 1e3 * statistics.fmean(r[1] - r[0] for r in main)
        seen.cpu_us = 1e6 * (cpu.at(last) - cpu.at(first)) / sum(r[3] for r in main)
        seen.startup = min(r[0] for r in requests) - began
        return seen
    finally:
        serving.terminate()
        serving.wait()


def middle(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def row(tool: Tool, results: dict[str, list[Seen]]) -> list[str]:
    def of(shape: str, name: str) -> float | None:
        return middle([getattr(seen, name) for seen in results[shape]])

    def late(shape: str) -> str:
        got = middle([s.ttft - s.true_ttft for s in results[shape] if s.ttft is not None])
        return "-" if got is None else f"{got:.1f}"

    truth = 16 * 200
    decode, output = of("16 x 200", "decode"), of("16 x 200", "output")
    error = f"{100 * (decode / truth - 1):+.2f} %" if decode else "none reported"
    serving = f"{100 * (output / truth - 1):+.1f} %" if output else "-"
    itl, gap = of("16 x 200, 3 a chunk", "itl"), of("16 x 200, 3 a chunk", "chunk_gap")
    cpu, start = of("64 x 100", "cpu_us"), of("16 x 200", "startup")
    notes = {
        s.note for seen in results.values() for s in seen if s.note.startswith(("failed", "not done", "client_bound"))
    }
    return [
        tool.name, error, serving, "-" if itl is None else f"{itl:.2f}", "-" if gap is None else f"{gap:.1f}",
        f"{late('16 x 200')} / {late('64 x 100')} / {late('256 x 20')}",
        "-" if cpu is None else f"{cpu:.0f}", "-" if start is None else f"{start:.1f}", "; ".join(sorted(notes)),
    ]  # fmt: skip


def capacity(server: Path, shape: tuple[int, int, int, int]) -> str:
    streams, rate, _, _ = shape
    seen = run(ours(), server, shape, 90)
    if seen.decode is None:
        return f"ours, {streams} x {rate} tok/s on one core: {seen.note}"
    error = 100 * (seen.decode / (streams * rate) - 1)
    bound = "client-bound" if seen.note else "not client-bound"
    said = f"{seen.decode:,.0f} tok/s ({error:+.2f} %), {seen.cpu_us:.0f} us/token, {bound}"
    return f"ours, {streams} x {rate} tok/s on one core: {said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter with vLLM")
    parser.add_argument("--guidellm", metavar="PROGRAM")
    parser.add_argument("--runs", type=int, default=1, help="medians over so many (default 1)")
    parser.add_argument("--limit", type=float, default=120, metavar="S", help="longest run of one tool")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, tokenizer = Path(folder) / "scheduled_server", Path(folder) / "tokenizer"
        subprocess.run(["cc", "-O2", "-o", str(server), str(HERE / "scheduled_server.c")], check=True)
        tools = [ours()]
        python = args.vllm or (args.guidellm and str(Path(args.guidellm).with_name("python")))
        if python:
            subprocess.run([python, "-c", WORDS, str(tokenizer)], check=True, stdout=subprocess.DEVNULL)
        tools += [vllm(args.vllm, tokenizer)] if args.vllm else []
        tools += [guidellm(args.guidellm, tokenizer)] if args.guidellm else []
        header = [
            "client",
            "decode error, 16 x 200",
            "serving rate against it",
            "ITL ms (true 5)",
            "chunk gap ms (true 15)",
        ]
        header += ["TTFT error ms at 16 / 64 / 256", "CPU us/token", "start-up s", "remark"]
        print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
        for tool in tools:
            results = {
                name: [run(tool, server, shape, args.limit) for _ in range(args.runs)] for name, shape in SHAPES.items()
            }
            print("| " + " | ".join(row(tool, results)) + " |", flush=True)
        print(f"\n{capacity(server, (512, 100, 1, 600))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
