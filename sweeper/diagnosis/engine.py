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
_CURRENT = tuple(sign for _, signs in _ENGINE_SIGNS for sign in signs)
LITERALS = _CURRENT
_VERSION = re.compile(r"(?:LLM engine \(v|vLLM API server version |█  version )(?P<version>\d+\.\d+[\w.+-]*)")


class EngineReader:
    """Votes by line; the first sign of each engine counts once per line, at most a thousand lines."""

    def __init__(self, engine: str | None) -> None:
        self._given = engine if engine in SERVERS else None
        self._votes: dict[str, int] = {}
        self.version: str | None = None

    @property
    def done(self) -> bool:
        return sum(self._votes.values()) > 200

    def line(self, text: str) -> None:
        """Counts a line with one of LITERALS."""
        for name, signs in _ENGINE_SIGNS:
            if any(sign in text for sign in signs):
                self._votes[name] = self._votes.get(name, 0) + 1
        if self.version is None and (match := _VERSION.search(text)) is not None:
            self.version = match["version"].rstrip(".")

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
