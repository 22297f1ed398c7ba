"""What this server understands, found out with a request or two: endpoint, fields, how it counts, tokens per word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from sweeper.core.errors import EnvironmentNotReady, SweeperError, UsageError
from sweeper.probes.load.client import Target
from sweeper.probes.load.counters import get
from sweeper.probes.load.pool import Pool

STREAM = {"stream": True, "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}
EACH = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
LADDER: tuple[dict[str, Any], ...] = (
    {**STREAM, **EACH, "ignore_eos": True},
    {**STREAM, **USAGE, "ignore_eos": True, "return_token_ids": True},
    {**STREAM, **USAGE},
    STREAM,
)
"""From exact counts to none; a step down when the server refuses the fields or does not count by them."""
RANK = {"usage": 0, "token_ids": 1, "final_usage": 2, "chunks": 3, None: 4}


@dataclass(slots=True, kw_only=True)
class Dialect:
    """How to ask this server. Prompt tokens are about `fixed` + `per_word` * words."""

    model: str
    chat: bool
    fields: dict[str, Any]
    source: str | None
    kind: str = "prose"
    per_word: float = 1.35
    fixed: float = 0.0
    reports_prompt: bool = False
    tok_s: float | None = None
    """Of the probe's single stream."""
    next_index: int = 0
    seed: str = "0"
    notes: list[str] = field(default_factory=list)

    def words(self, tokens: int) -> int:
        return max(4, round((tokens - self.fixed) / self.per_word))

    def plan(
        self,
        count: int,
        isl: int,
        lengths: Sequence[int],
        concurrency: int,
        mode: str,
        offsets: list[float] | None = None,
    ) -> dict[str, Any]:
        """A plan for one client process; every prompt is new."""
        first, self.next_index = self.next_index, self.next_index + count
        return {
            "words": [self.words(isl)] * count,
            "lengths": list(lengths),
            "length_fields": ["max_tokens"],
            "first": first,
            "seed": self.seed,
            "kind": self.kind,
            "chat": self.chat,
            "base": {"model": self.model, **self.fields},
            "concurrency": concurrency,
            "mode": mode,
            "offsets": offsets,
        }


def target_of(base_url: str, *, chat: bool, headers: Sequence[str] = (), first_s: float, stall_s: float) -> Target:
    """UsageError for something that is not an http(s) URL. A trailing /v1 is accepted."""
    parts = urlsplit(base_url if "//" in base_url else f"http://{base_url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"not a server URL: {base_url}", hint="Example: sweeper bench http://127.0.0.1:8000")
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Target(
        host=parts.hostname,
        port=parts.port or (443 if parts.scheme == "https" else 80),
        path=prefix + ("/v1/chat/completions" if chat else "/v1/completions"),
        tls=parts.scheme == "https",
        headers=tuple(headers),
        first_s=first_s,
        stall_s=stall_s,
    )


def is_local(base_url: str) -> bool:
    """Whether the server is on this machine, judging by its address."""
    host = urlsplit(base_url if "//" in base_url else f"http://{base_url}").hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


def served_models(base_url: str) -> list[str] | None:
    """Ids of /v1/models; None when the server does not list them. EnvironmentNotReady when nobody answers."""
    status, body = get(base_url.rstrip("/").removesuffix("/v1"), "/v1/models", 10.0)
    if status == 0:
        raise EnvironmentNotReady(
            f"no server at {base_url}: {body.decode('utf-8', 'replace')}",
            hint=f"Is it up, and is this its port? curl -s {base_url.rstrip('/')}/v1/models",
        )
    try:
        entries = json.loads(body)["data"] if status == 200 else None
    except (ValueError, KeyError, TypeError):
        return None
    return [str(entry["id"]) for entry in entries] if entries else None


def choose_model(base_url: str, wanted: str | None) -> str:
    """`wanted` if the server has it, the only or first one if None. UsageError names what is served."""
    names = served_models(base_url)
    if names is None:
        if wanted is None:
            raise UsageError(f"{base_url} does not list its models", hint="Name one: --model NAME")
        return wanted
    if wanted is None:
        return names[0]
    # LoRA adapters and aliases may be answered without being listed, so the server has the last word on them.
    if wanted not in names:
        raise UsageError(f"no model '{wanted}' on {base_url}", hint="It serves: " + ", ".join(names))
    return wanted


def negotiate(pool: Pool, dialect: Dialect, *, isl: int, osl: int) -> Dialect:
    """Walk down the ladder until the server counts tokens, then fit words to tokens. SweeperError says its words."""
    best: Dialect | None = None
    problem = ""
    for fields in LADDER:
        tried = replace(dialect, fields=fields, next_index=dialect.next_index)
        record = _ask(pool, tried, isl, min(osl, 16))
        dialect.next_index = tried.next_index
        error = record["error"]
        if error and error.startswith("HTTP 404") and not tried.chat and "model" not in error.lower():
            pool.retarget(
                replace(pool.target, path=pool.target.path.replace("/v1/completions", "/v1/chat/completions"))
            )
            dialect = replace(dialect, chat=True)
            return negotiate(pool, dialect, isl=isl, osl=osl)
        if error:
            problem = problem or error
            if not error.startswith(("HTTP 400", "HTTP 422")) or _about_length(error):
                break
            continue
        tried.source = record["source"]
        _learn(tried, record, isl)
        if best is None or RANK[tried.source] < RANK[best.source]:
            best = tried
        if RANK[best.source] <= 1:
            break
        if fields is not LADDER[0] and RANK[tried.source] <= 2:
            break
    if best is None:
        raise SweeperError(f"the server answered the first request with an error: {problem}")
    best.next_index = dialect.next_index
    _fit(pool, best, isl)
    return best


def _about_length(error: str) -> bool:
    return "context length" in error or ("maximum" in error and "tokens" in error)


def _ask(pool: Pool, dialect: Dialect, isl: int, osl: int) -> dict[str, Any]:
    return pool.run([dialect.plan(1, isl, [osl], 1, "closed")]).records[0]


def _learn(dialect: Dialect, record: dict[str, Any], isl: int) -> None:
    stamps, totals = record["stamps"], record["totals"]
    if len(stamps) > 1 and stamps[-1] > stamps[0]:
        dialect.tok_s = (totals[-1] - totals[0]) / (stamps[-1] - stamps[0])
    if record["prompt_tokens"]:
        dialect.reports_prompt = True
        dialect.per_word = record["prompt_tokens"] / dialect.words(isl)
        dialect.fixed = 0.0


def _fit(pool: Pool, dialect: Dialect, isl: int) -> None:
    """A second point of the line words -> tokens when the first misses by over 1 % (a chat template adds tokens)."""
    if not dialect.reports_prompt:
        dialect.notes.append("the server does not report prompt tokens: input length is an estimate")
        return
    for _ in range(2):
        words = dialect.words(isl)
        record = _ask(pool, dialect, isl, 1)
        got = record["prompt_tokens"]
        if record["error"] or not got or abs(got - isl) <= max(2, 0.01 * isl):
            return
        # The slope of our text hardly changes; what is left over is the template.
        dialect.fixed += got - (dialect.fixed + dialect.per_word * words)
