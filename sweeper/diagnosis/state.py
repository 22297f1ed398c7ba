"""Where in its life a server is, read off its own log: booting, ready, serving, stopping, booting again."""

from __future__ import annotations

from dataclasses import dataclass

READY = (
    "Application startup complete",
    "The server is fired up and ready",
    "server is listening on",
    "Uvicorn running on",
)
SERVED = b'HTTP/1.1" 200'
"""On an access log line with POST: a request was answered. Looked for once per block, not per line."""
BOOT = (
    "Initializing a V1 LLM engine", "Initializing a V0 LLM engine", "Initializing an LLM engine",
    "server_args=ServerArgs(",
    "non-default args", "Starting to load model", "Loading safetensors checkpoint shards", 
    "llama_model_loader: loaded meta",
    "Load weight begin",
)  # fmt: skip
START = (
    "vLLM API server version",
    "server_args=ServerArgs(",
    "Initializing a V1 LLM engine",
    "]   █▄█▀",
    "build_info: build",
)
"""Only the first process of a server prints one of these, once per start."""
STOPPING = (
    "received signal=SIGTERM", "received signal=SIGINT", "shutdown triggered", "Received SIGTERM", "Received SIGINT",
    "SIGTERM received", "Received signal SIGTERM", "KeyboardInterrupt", "Shutting down due to SIGTERM",
)  # fmt: skip
DEATH = (
    "Received sigquit from a child process", "Fatal Python error", "terminate called after throwing",
    "died unexpectedly",
    "EngineDeadError", "Engine core initialization failed", "core dumped", "Engine core proc",
    "EngineCore failed to start",
    "EngineCore encountered a fatal error", "Server process exited", "srun: error:", "exited with code", "Killed",
    "Scheduler hit an exception",
)  # fmt: skip
"""Marks of a death that say nothing about its reason."""
MARKERS = tuple(dict.fromkeys((*READY, *BOOT, *START, *STOPPING, *DEATH)))


@dataclass(slots=True)
class Attempt:
    """One start of a server within a log. Line numbers; None: not seen."""

    start: int = 1
    booted: int | None = None
    ready: int | None = None
    served_first: int | None = None
    served: int | None = None
    stopping: int | None = None
    death: int | None = None
    death_line: str = ""

    def after_ready(self, no: int) -> bool | None:
        """At line `no`. None: the log shows neither a start nor a ready server up to there (an excerpt)."""
        if self.ready is not None or (self.served_first is not None and self.served_first < no):
            return True
        return False if self.booted is not None else None


class LifeReader:
    """Fed with the lines that hold a marker, in order."""

    def __init__(self) -> None:
        self.attempts = [Attempt()]

    @property
    def now(self) -> Attempt:
        return self.attempts[-1]

    def line(self, no: int, text: str) -> None:
        """`text` cleaned. A start after a death, a stop or a ready server begins a new attempt."""
        now = self.now
        if _has(text, START) and (now.death or now.stopping or now.ready):
            self.attempts.append(fresh := Attempt(start=no))
            if now.served is not None and now.served > no:
                fresh.served, now.served = now.served, None
            now = fresh
        if _has(text, BOOT) or _has(text, START):
            now.booted = now.booted or no
        if _has(text, READY):
            now.ready = now.ready or no
        if now.stopping is None and _has(text, STOPPING):
            now.stopping = no
        if now.death is None and now.stopping is None and _has(text, DEATH) and _is_death(text):
            now.death, now.death_line = no, text


def _has(text: str, literals: tuple[str, ...]) -> bool:
    return any(literal in text for literal in literals)


def _is_death(text: str) -> bool:
    if "exited with code" in text:
        return "exited with code 0" not in text
    if "Killed" in text:
        return text.strip().endswith("Killed") or "Killed process" in text
    if "Engine core proc" in text:
        return "died" in text
    return not text.startswith("  ")
