"""Server-sent events of a streamed answer: which carry tokens, how many, and what went wrong.

One `Answer` per request. It is fed with decoded body bytes and one arrival stamp per read; an event that raises the
number of tokens is kept as (stamp, tokens so far). Role, empty and usage-only events carry no token and leave no stamp.
Tokens are counted, in this order, by the cumulative `usage` of the event, by the ids in `token_ids`, or not at all:
then every event with text counts one *chunk*, and `source` says so.
"""

from __future__ import annotations

from array import array
from typing import Any

from orjson import JSONDecodeError, loads

TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "text", "refusal")


class Answer:
    """What one request got back. `stamps` are monotonic seconds, `totals` tokens (or chunks) received by then."""

    __slots__ = (
        "by_usage",
        "cached_tokens",
        "cut",
        "done",
        "ended_s",
        "error",
        "final_tokens",
        "finish",
        "index",
        "prompt_tokens",
        "requested",
        "sent_s",
        "speculative",
        "stamps",
        "tail",
        "texts",
        "totals",
        "units",
        "units_are_ids",
    )

    def __init__(self, index: int, requested: int, *, keep_text: bool = False) -> None:
        self.index, self.requested = index, requested
        self.texts: list[str] | None = [] if keep_text else None
        self.sent_s = self.ended_s = 0.0
        self.stamps, self.totals = array("d"), array("q")
        self.tail = b""
        self.units = 0
        self.units_are_ids = True
        self.by_usage = self.done = self.cut = False
        self.final_tokens: int | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.finish: str | None = None
        self.error: str | None = None
        self.speculative: dict[str, Any] | None = None

    def feed(self, body: bytes, now: float) -> None:
        """Body bytes in any cut; events end with an empty line, CRLF or LF."""
        if self.tail:
            body = self.tail + body
            self.tail = b""
        if b"\r" in body:
            body = body.replace(b"\r\n", b"\n")
        start = 0
        while (end := body.find(b"\n\n", start)) >= 0:
            if body.startswith(b"data: ", start) and body.find(b"\n", start, end) < 0:
                self._payload(body[start + 6 : end], now)
            else:
                self._lines(body[start:end], now)
            start = end + 2
        if start < len(body):
            self.tail = body[start:]

    def finish_body(self, now: float) -> None:
        """The body ended; a last event without its empty line still counts."""
        if self.tail.strip():
            tail, self.tail = self.tail, b""
            if tail.lstrip().startswith(b"{"):
                self._whole(tail)
            else:
                self._lines(tail, now)
        if not (self.done or self.finish or self.error or self.cut):
            # A proxy that gives up, or a server whose worker died, ends the body as if all were well.
            self.error = "the stream ended without a finish reason or [DONE]"

    def _lines(self, block: bytes, now: float) -> None:
        data = [line[5:].lstrip(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
        if data:
            self._payload(b"\n".join(data), now)
        elif block.lstrip().startswith(b"{"):
            self._whole(block)

    def _whole(self, body: bytes) -> None:
        """A JSON object where a stream of events should be."""
        try:
            answer = loads(body)
        except JSONDecodeError:
            self.error = f"not a stream of events: {body[:80].decode('utf-8', 'replace')}"
            return
        self.error = _error_text(answer) or "the server does not stream: it sent one JSON answer"

    def _payload(self, payload: bytes, now: float) -> None:
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            event = loads(payload)
        except JSONDecodeError:
            self.error = self.error or f"an event that is not JSON: {payload[:80].decode('utf-8', 'replace')}"
            return
        if not isinstance(event, dict):
            self.error = self.error or _error_text(event)
            return
        usage, choices = event.get("usage"), event.get("choices")
        if usage and choices and not self.units:
            count = usage.get("completion_tokens") or 0
            if count > (self.totals[-1] if self.totals else 0):
                if not self.totals:
                    self._usage(usage)
                    self.by_usage = True
                self.stamps.append(now)
                self.totals.append(count)
            if reason := choices[0].get("finish_reason"):
                self.finish = reason
                self._usage(usage)
            return
        self._other(event, usage, choices, now)

    def _other(self, event: dict[str, Any], usage: dict[str, Any] | None, choices: Any, now: float) -> None:
        if message := _error_text(event):
            self.error = self.error or message
            return
        if usage:
            self._usage(usage)
        metrics = event.get("metrics")
        if isinstance(metrics, dict) and metrics.get("speculative_decoding"):
            self.speculative = metrics["speculative_decoding"]
        for choice in choices or ():
            ids = choice.get("token_ids")
            if ids or (ids is None and _has_text(choice)):
                self.units += len(ids) if ids else 1
                self.units_are_ids = self.units_are_ids and bool(ids)
                if not self.by_usage:
                    self.stamps.append(now)
                    self.totals.append(self.units)
                    if self.texts is not None:
                        self.texts.append(_text(choice))
            if reason := choice.get("finish_reason"):
                self.finish = reason

    def _usage(self, usage: dict[str, Any]) -> None:
        self.final_tokens = usage.get("completion_tokens")
        self.prompt_tokens = usage.get("prompt_tokens") or self.prompt_tokens
        details = usage.get("prompt_tokens_details")
        if details:
            self.cached_tokens = details.get("cached_tokens")

    def source(self) -> str | None:
        """usage, token_ids, final_usage (spread evenly over the chunks), chunks, or None when nothing came."""
        if self.by_usage:
            return "usage"
        if not self.units:
            return None
        if self.units_are_ids:
            return "token_ids"
        return "final_usage" if self.final_tokens else "chunks"

    def record(self) -> dict[str, Any]:
        """Everything, as plain values for the parent process."""
        names: tuple[str, ...] = (
            "index",
            "requested",
            "sent_s",
            "ended_s",
            "stamps",
            "totals",
            "final_tokens",
            "prompt_tokens",
        )
        names += ("cached_tokens", "finish", "error", "speculative", "cut", "done")
        kept = {"texts": self.texts} if self.texts is not None else {}
        return {name: getattr(self, name) for name in names} | {"source": self.source()} | kept


def _error_text(event: Any) -> str | None:
    """The message of an error object: OpenAI style, or FastAPI's `detail`."""
    if not isinstance(event, dict):
        return f"not an event: {str(event)[:80]}"
    error = event.get("error")
    if error is None and event.get("object") == "error":
        error = event
    if error is None and "detail" in event and "choices" not in event:
        error = event["detail"]
    if error is None:
        return None
    message = error.get("message") if isinstance(error, dict) else error
    return f"server error: {str(message)[:200]}"


def _has_text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or choice
    return any(delta.get(name) for name in TEXT_FIELDS) or bool(delta.get("tool_calls"))


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta") or choice
    return "".join(value for name in TEXT_FIELDS if isinstance(value := delta.get(name), str))


def body_error(status: int, body: bytes) -> str:
    """One line for an answer that is not 200."""
    try:
        message = _error_text(loads(body)) if body else None
    except JSONDecodeError:
        message = None
    said = message.removeprefix("server error: ") if message else body[:120].decode("utf-8", "replace").strip()
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"
