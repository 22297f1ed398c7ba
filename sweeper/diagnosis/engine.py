"""Which engine wrote a log, for logs that lack the banner; and does a signature speak of that engine."""

from __future__ import annotations

import re

from sweeper.diagnosis.signature import Signature

SERVERS = ("vllm", "sglang", "transformers", "llamacpp", "trtllm")
_ENGINE_SIGNS = (
    ("sglang", ("sglang/srt", "sglang.srt", "server_args=ServerArgs(", "sglang.launch_server")),
    ("vllm", ("/vllm/", "vllm.entrypoints", "(EngineCore", "(APIServer pid", "vLLM API server", "LLM engine (v")),
    ("trtllm", ("tensorrt_llm/", "[TRT-LLM]", "trtllm-serve")),
    ("llamacpp", ("llama_model_loader", "ggml_cuda", "llama_context", "llama-server", "ggml-cuda")),
    ("transformers", ("transformers serve", "transformers/cli/serv", "transformers/commands/serving")),
)
_VERSION = re.compile(rb"(?:LLM engine \(v|vLLM API server version |\xe2\x96\x88  version )(\d+\.\d+[\w.+-]*)")
_BLOCKS = 8
"""Only the beginning of a log is asked."""


class EngineReader:
    """Counts signs in the first blocks of a log."""

    def __init__(self, engine: str | None) -> None:
        self._given = engine if engine in SERVERS else None
        self._votes: dict[str, int] = {}
        self._left = _BLOCKS << 20
        self.version: str | None = None

    def block(self, data: bytes) -> None:
        """The next complete lines."""
        if self._left <= 0:
            return
        self._left -= len(data)
        for name, signs in _ENGINE_SIGNS:
            votes = sum(data.count(sign.encode()) for sign in signs)
            if votes:
                self._votes[name] = self._votes.get(name, 0) + votes
        if self.version is None and (match := _VERSION.search(data)) is not None:
            self.version = match[1].decode().rstrip(".")

    @property
    def engine(self) -> str | None:
        """The engine asked for, else the one with most signs."""
        if self._given:
            return self._given
        # SGLang imports vLLM's layers, so vLLM paths in an SGLang log do not make it vLLM.
        if self._votes.get("sglang"):
            return "sglang"
        return max(self._votes, key=lambda name: self._votes[name], default=None)


def fits(signature: Signature, engine: str | None, version: str | None) -> bool:
    """False where the signature is written for another server, or for other versions of it."""
    named = [name for name in signature.engines if name in SERVERS]
    if engine is not None and named and len(named) == len(signature.engines) and engine not in named:
        return False
    if version is None or engine not in named:
        return True
    this = _numbers(version)
    if signature.since and this < _numbers(signature.since):
        return False
    return not (signature.until and this > _numbers(signature.until))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
