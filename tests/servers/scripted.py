"""A scripted OpenAI-compatible server: every token leaves at a known time. Standard library only.

As a program (a fake engine that the `command` engine can start):

    python tests/servers/scripted.py --port 8123 --rate 100 --ttft-ms 50 --tokens-per-chunk 3
    python tests/servers/scripted.py --port 8123 --log-line "5:some line of a real log" --hang

As a fixture:

    with ScriptedServer(Script(rate=100)) as server:
        measure(server.url, "scripted", ...)

Times: token i of a request (from 0) leaves at `arrival + ttft + i / rate`; a chunk of k tokens leaves with its
last token, the first chunk at `arrival + ttft`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import cycle, islice

PROSE = (
    "Paris is the capital of France, and after four come five, six, seven, eight, nine and ten. Thursday follows "
    "Wednesday, 17 plus 25 is 42, and people live on Earth, where rain falls from clouds once drops grow heavy."
).split()


@dataclass
class Script:
    """What the server does. Times in seconds; rates in tokens per second and stream."""

    model: str = "scripted"
    rate: float = 200.0
    ttft: float = 0.02
    tokens_per_chunk: int = 1
    first_chunk_tokens: int | None = None
    """Tokens of the first chunk; None: as many as of any other."""
    usage: str = "chunk"
    """chunk: cumulative in every chunk; final: in a last chunk only; none."""
    token_ids: bool = True
    """Answer `return_token_ids` with the ids of the chunk."""
    role_first: bool = False
    """A chunk with a role and no token leaves at once (chat always sends it)."""
    reasoning: int = 0
    """So many leading chunks carry `reasoning` instead of `content` (chat)."""
    empty_text: bool = False
    """Chunks carry tokens but no text."""
    words_per_token: float = 1.0
    text: str = "word"
    """The word repeated; `prose`: an answer that passes for one, where it is not streamed."""
    tokens_per_word: float = 1.3
    """Prompt tokens reported per white-space separated word."""
    piece: float | None = None
    """Characters per prompt token inside a word, instead of `tokens_per_word`: long words have more tokens."""
    tokenize: bool = False
    """Answer POST /tokenize."""
    context: int = 131072
    """Longest prompt and answer together; 400 for more."""
    pinned: bool = False
    """As transformers serve: lists other models, and answers under its own name or none."""
    usage_in_last_choice: bool = False
    """The final usage comes with the finish reason."""
    cached_tokens: int = 0
    prefill_s_per_token: float = 0.0
    serial: bool = False
    """Answers one request at a time."""
    serial_prefill: bool = False
    """Prompts are read one after the other, not side by side."""
    early_stop: int | None = None
    """End with `stop` after so many tokens, whatever was asked."""
    error_after: int | None = None
    """An error event inside the 200 answer after so many tokens."""
    disconnect_after: int | None = None
    stall_after: int | None = None
    """Say nothing more after so many tokens, and keep the connection."""
    fault_every: int = 1
    """Faults hit every n-th completion request only."""
    fault_skip: int = 0
    """The first n completion requests are spared."""
    reject_fields: tuple[str, ...] = ()
    """Answer 400 when a request has one of these fields."""
    streaming: bool = True
    """False: answer with one JSON object, whatever was asked."""
    status: int = 200
    metrics: str = "vllm"
    """vllm, sglang, none."""
    metrics_factor: float = 1.0
    """The token counter counts so much per token (a lying counter)."""
    draft_tokens: int = 0
    """Per step; tokens_per_chunk - 1 of them are accepted."""
    healthy_after: float = 0.0
    close_each: bool = False
    """Close the connection after every answer."""
    log_lines: tuple[tuple[float, str], ...] = ()
    hang: bool = False
    """Never listen: print the log lines and wait."""
    exit_after: float | None = None
    exit_code: int = 1


@dataclass
class Tally:
    """What the server did."""

    requests: list[dict] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    running: int = 0
    peak_running: int = 0
    late_s: float = 0.0
    """How far the server fell behind its script, at worst: on a machine that is busy elsewhere it cannot keep it."""


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


class _App:
    def __init__(self, script: Script, tally: Tally) -> None:
        self.script, self.tally = script, tally
        self.born = time.monotonic()
        self.prefill_free_at = 0.0
        self.count = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *rest = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self.answer(method, path.split("?")[0], body, writer):
                    break
                if self.script.close_each:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        script = self.script
        if path in ("/health", "/ping", "/health_generate"):
            ok = time.monotonic() - self.born >= script.healthy_after
            return self.reply(writer, 200 if ok else 503, b"{}" if ok else b'{"status":"starting"}')
        if path == "/v1/models":
            entry = {"id": script.model, "object": "model", "max_model_len": script.context, "root": script.model}
            if script.pinned:
                entry = {"id": "other/cached-model", "object": "model"}
            return self.reply(writer, 200, json.dumps({"object": "list", "data": [entry]}).encode())
        if path == "/version":
            return self.reply(writer, 200, b'{"version":"0.0.0"}')
        if path == "/metrics" and script.metrics != "none":
            return self.reply(writer, 200, self.metrics().encode(), "text/plain; version=0.0.4")
        if path == "/tokenize" and script.tokenize:
            count = self.prompt_tokens(json.loads(body)["prompt"])
            return self.reply(writer, 200, json.dumps({"count": count, "tokens": [0] * count}).encode())
        if method == "POST" and path in ("/v1/completions", "/v1/chat/completions"):
            try:
                return await self.generate(json.loads(body), path.startswith("/v1/chat"), writer)
            except json.JSONDecodeError:
                return self.reply(writer, 400, b'{"error":{"message":"body is not JSON"}}')
        return self.reply(writer, 404, b'{"detail":"Not Found"}')

    def prompt_tokens(self, text: str) -> int:
        words, script = text.split(), self.script
        if script.piece is not None:
            return int(sum(-(-len(word) // script.piece) for word in words))
        return max(1, round(len(words) * script.tokens_per_word))

    @staticmethod
    def reply(writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json") -> bool:
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind.encode(), len(body))
            + body
        )
        return True

    def metrics(self) -> str:
        t, s = self.tally, self.script
        tokens = t.tokens * s.metrics_factor
        if s.metrics == "sglang":
            return f'sglang:generation_tokens_total{{model_name="{s.model}"}} {tokens}\n'
        lab = f'{{engine="0",model_name="{s.model}"}}'
        lines = [
            "# HELP vllm:generation_tokens_total Number of generation tokens processed.",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{lab} {tokens}",
            f"vllm:prompt_tokens_total{lab} {t.prompt_tokens}",
            f"vllm:num_requests_running{lab} {t.running}",
            f"vllm:num_requests_waiting{lab} 0",
        ]
        if s.draft_tokens:
            accepted = t.steps * (s.tokens_per_chunk - 1)
            lines += [
                f"vllm:spec_decode_num_drafts_total{lab} {t.steps}",
                f"vllm:spec_decode_num_draft_tokens_total{lab} {t.steps * s.draft_tokens}",
                f"vllm:spec_decode_num_accepted_tokens_total{lab} {accepted}",
            ]
            for position in range(s.draft_tokens):
                hit = t.steps if position < s.tokens_per_chunk - 1 else 0
                label = f'{{engine="0",model_name="{s.model}",position="{position}"}}'
                lines.append(f"vllm:spec_decode_num_accepted_tokens_per_pos_total{label} {hit}")
        return "\n".join(lines) + "\n"

    async def generate(self, asked: dict, chat: bool, writer: asyncio.StreamWriter) -> bool:
        script, tally, arrived = self.script, self.tally, time.monotonic()
        self.count += 1
        number = self.count
        if script.pinned and asked.get("model", script.model) != script.model:
            told = f"Server is pinned to '{script.model}'; requested '{asked['model']}'."
            return self.reply(writer, 400, json.dumps({"detail": told}).encode())
        if asked.get("model", script.model) != script.model:
            return self.reply(
                writer, 404, b'{"error":{"message":"The model `%s` does not exist."}}' % str(asked["model"]).encode()
            )
        bad = [name for name in script.reject_fields if name in asked]
        if bad or script.status != 200:
            message = json.dumps({"error": {"message": f"unknown field: {bad}" if bad else "scripted failure"}})
            return self.reply(writer, 400 if bad else script.status, message.encode())
        prompt = asked.get("prompt")
        if chat:
            prompt = " ".join(str(m.get("content")) for m in asked["messages"])
        n_prompt = len(prompt) if isinstance(prompt, list) else self.prompt_tokens(str(prompt))
        limit = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16)
        if n_prompt + limit > script.context:
            told = f"This model's maximum context length is {script.context} tokens. However, you requested {limit}"
            return self.reply(writer, 400, json.dumps({"error": {"message": told}}).encode())
        total = min(limit, script.early_stop) if script.early_stop else limit
        note = {"arrived_s": arrived, "prompt_tokens": n_prompt, "max_tokens": limit, "asked": asked, "ended_s": None}
        tally.requests.append(note)
        tally.prompt_tokens += n_prompt
        start = arrived + script.ttft
        if script.prefill_s_per_token:
            begin = max(arrived, self.prefill_free_at) if script.serial_prefill else arrived
            start = begin + script.prefill_s_per_token * n_prompt + script.ttft
            self.prefill_free_at = start
        if script.serial:
            start = max(arrived, self.prefill_free_at) + script.ttft
            self.prefill_free_at = start + total / script.rate
        if not (script.streaming and asked.get("stream")):
            return await self.whole(asked, chat, n_prompt, total, start, writer)
        tally.running += 1
        tally.peak_running = max(tally.peak_running, tally.running)
        try:
            return await self.stream(asked, chat, n_prompt, limit, total, start, number, writer)
        finally:
            tally.running -= 1
            note["ended_s"] = time.monotonic()

    async def whole(self, asked, chat, n_prompt, total, start, writer) -> bool:
        await asyncio.sleep(max(0.0, start + total / self.script.rate - time.monotonic()))
        self.tally.tokens += total
        if self.script.text == "prose":
            text = " ".join(islice(cycle(PROSE), total))
        else:
            text = " ".join([self.script.text] * total)
        choice = {"index": 0, "finish_reason": "length"} | (
            {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        )
        if asked.get("logprobs"):
            choice["logprobs"] = {
                "tokens": [self.script.text] * total,
                "token_logprobs": [-0.5] * total,
                "top_logprobs": [{"word": -0.5, "other": -1.5}] * total,
            }
        usage = {"prompt_tokens": n_prompt, "completion_tokens": total, "total_tokens": n_prompt + total}
        return self.reply(writer, 200, json.dumps({"id": "cmpl-1", "choices": [choice], "usage": usage}).encode())

    async def stream(self, asked, chat, n_prompt, limit, total, start, number, writer) -> bool:
        script, tally = self.script, self.tally
        faulty = number > script.fault_skip and (number - script.fault_skip - 1) % script.fault_every == 0
        options = asked.get("stream_options") or {}
        each = script.usage == "chunk" and options.get("continuous_usage_stats")
        ids = script.token_ids and asked.get("return_token_ids")
        name = "chat.completion.chunk" if chat else "text_completion"

        def event(choices: list, sent: int, usage: bool) -> bytes:
            data = {"id": f"cmpl-{number}", "object": name, "created": 1, "model": script.model, "choices": choices}
            if usage:
                data["usage"] = {"prompt_tokens": n_prompt, "completion_tokens": sent, "total_tokens": n_prompt + sent}
                if script.cached_tokens:
                    data["usage"]["prompt_tokens_details"] = {"cached_tokens": script.cached_tokens}
            return _chunk(b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n")

        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if chat or script.role_first:
            delta = {"delta": {"role": "assistant", "content": ""}} if chat else {"text": ""}
            writer.write(event([{"index": 0, **delta, "finish_reason": None}], 0, each))
        sent = chunks = 0
        while sent < total:
            first = script.first_chunk_tokens or script.tokens_per_chunk
            k = min(total - sent, first if chunks == 0 else script.tokens_per_chunk)
            due = start if chunks == 0 else start + (sent + k - first) / script.rate
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            tally.late_s = max(tally.late_s, time.monotonic() - due)
            if faulty and script.error_after is not None and sent >= script.error_after:
                error = {"error": {"message": "scripted engine error", "type": "InternalServerError", "code": 500}}
                writer.write(
                    _chunk(b"data: " + json.dumps(error).encode() + b"\n\n")
                    + _chunk(b"data: [DONE]\n\n")
                    + b"0\r\n\r\n"
                )
                return True
            if faulty and script.disconnect_after is not None and sent >= script.disconnect_after:
                writer.transport.abort()
                return False
            if faulty and script.stall_after is not None and sent >= script.stall_after:
                await asyncio.sleep(3600)
            if writer.transport.is_closing():
                return False
            sent += k
            chunks += 1
            tally.tokens += k
            tally.steps += 1
            words = "" if script.empty_text else f" {script.text}" * max(1, round(k * script.words_per_token))
            if not chat:
                body = {"text": words}
            elif chunks <= script.reasoning:
                body = {"delta": {"reasoning": words}}
            else:
                body = {"delta": {"content": words}}
            done = sent >= total
            choice = {
                "index": 0,
                **body,
                "logprobs": None,
                "finish_reason": ("length" if total == limit else "stop") if done else None,
            }
            if ids:
                choice["token_ids"] = list(range(k))
            last = done and script.usage_in_last_choice
            writer.write(event([choice], sent, each or last))
            await writer.drain()
        if script.usage != "none" and not script.usage_in_last_choice and options.get("include_usage"):
            writer.write(event([], sent, True))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        return True


class ScriptedServer:
    """Runs in a thread of the test process; `url`, `tally` and `script` are open to the test."""

    def __init__(self, script: Script | None = None, **changes: object) -> None:
        self.script = dataclasses.replace(script or Script(), **changes)
        self.tally = Tally()
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(_App(self.script, self.tally).connection, "127.0.0.1", 0, backlog=1024)
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


async def _serve(script: Script, host: str, port: int) -> int:
    started = time.monotonic()

    async def say() -> None:
        for after, line in sorted(script.log_lines):
            await asyncio.sleep(max(0.0, started + after - time.monotonic()))
            print(line, flush=True)

    talking = asyncio.create_task(say())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not script.hang:
        await asyncio.start_server(_App(script, Tally()).connection, host, port, backlog=1024)
        print(f"scripted server on http://{host}:{port} model {script.model}", flush=True)
    try:
        await asyncio.wait_for(stop.wait(), script.exit_after)
    except TimeoutError:
        return script.exit_code
    finally:
        talking.cancel()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Every field of `Script` is an option: `--tokens-per-chunk 3`, `--role-first`, `--log-line SECONDS:TEXT`."""
    parser = argparse.ArgumentParser(description="scripted OpenAI-compatible server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--ttft-ms", type=float)
    parser.add_argument("--log-line", action="append", default=[], metavar="SECONDS:TEXT")
    parser.add_argument("--log-file", help="print this file line by line at start")
    defaults = Script()
    for item in dataclasses.fields(Script):
        if item.name in ("log_lines", "reject_fields"):
            continue
        flag, value = "--" + item.name.replace("_", "-"), getattr(defaults, item.name)
        if isinstance(value, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=value)
        else:
            kind = type(value) if value is not None else (float if item.name == "exit_after" else int)
            parser.add_argument(flag, type=kind, default=value)
    parser.add_argument("--reject-field", action="append", default=[])
    # Unknown flags are ignored: the server must accept the flags of the engine it stands for.
    args, _ = parser.parse_known_args(argv)
    lines = [(float(stamp), text) for stamp, _, text in (entry.partition(":") for entry in args.log_line)]
    if args.log_file:
        with open(args.log_file, encoding="utf-8") as stream:
            lines += [(0.0, line.rstrip("\n")) for line in stream]
    chosen = {f.name: getattr(args, f.name) for f in dataclasses.fields(Script) if hasattr(args, f.name)}
    chosen |= {"log_lines": tuple(lines), "reject_fields": tuple(args.reject_field)}
    if args.ttft_ms is not None:
        chosen["ttft"] = args.ttft_ms / 1000
    return asyncio.run(_serve(Script(**chosen), args.host, args.port))


if __name__ == "__main__":
    sys.exit(main())
