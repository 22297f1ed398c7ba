"""What this server understands, found out with a few short requests: endpoint, fields, how it counts, its tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sweeper.core.errors import EnvironmentNotReady, SweeperError, UsageError
from sweeper.probes.load.client import Target
from sweeper.probes.load.counters import get
from sweeper.probes.load.pool import Pool
from sweeper.probes.load.prompts import prompt
from sweeper.probes.load.retokenise import tokenizer_count
from sweeper.probes.load.sizing import Count, Goal, Length, fit, server_count, shifted

STREAM = {"stream": True, "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}
EACH = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
UNENDING = {"generation_config": '{"eos_token_id": -1, "pad_token_id": 0, "do_sample": false}'}
"""`ignore_eos` of transformers serve: no token has this id, so only max_tokens ends the answer."""
LADDER: tuple[dict[str, Any], ...] = (
    {**STREAM, **EACH, "ignore_eos": True},
    {**STREAM, **USAGE, "ignore_eos": True, "return_token_ids": True},
    {**STREAM, **USAGE, **UNENDING},
    {**STREAM, **USAGE},
    STREAM,
)
"""From exact counts to none; a step down when the server refuses the fields or does not count by them."""
RANK = {"usage": 0, "token_ids": 1, "final_usage": 2, "chunks": 3, None: 4}
FIRST_WORDS = 64
"""Of the first prompt, at most: under a quarter of the length asked for, so that no tokenizer makes it too long."""
TRUSTED = 1
"""Tokens by which two counts may differ after the template is taken into account."""
FITTED = 64
"""Prompts of a plan that are fitted one by one; the rest get their mean."""
FITTED_BY_SERVER = 16
"""The same where each count is a request."""
_PINNED = re.compile(r"pinned to '([^']+)'")


@dataclass(slots=True, kw_only=True)
class Dialect:
    """How to ask this server. Prompt tokens are about `fixed` + `per_word` * words; `count` is more exact."""

    model: str
    chat: bool
    fields: dict[str, Any]
    source: str | None
    kind: str = "prose"
    per_word: float = 1.35
    fixed: float = 0.0
    count: Count | None = None
    by_requests: bool = False
    """`count` sends the prompts."""
    context: int | None = None
    """Prompt and answer together, at most."""
    reports_prompt: bool = False
    tok_s: float | None = None
    """Of the probe's single stream."""
    next_index: int = 0
    seed: str = "0"
    keep_text: bool = False
    listed: tuple[str, ...] | None = None
    named: bool = True
    """The model was asked for by name."""
    notes: list[str] = field(default_factory=list)

    def words(self, tokens: int) -> int:
        """For the first guess at so many tokens: a little under the context where it is tight."""
        most = 0.97 * self.context if self.context else tokens
        return max(4, round((min(tokens, most) - self.fixed) / self.per_word))

    def text(self, index: int, length: Length, *, twin: bool = False) -> str:
        return prompt(length.words, seed=self.seed, index=index, kind=self.kind, cut=length.cut, twin=twin)

    def goal(self, isl: int, osl: int) -> Goal:
        # Counting costs nothing to speak of, unless it is done by requests: then a neighbour of the length will do.
        slack = max(2, isl // 100) if self.by_requests else 0
        return Goal(tokens=isl, slack=slack, most=self.context - osl if self.context else 1 << 29)

    def lengths(self, first: int, count: int, isl: int, osl: int) -> list[Length]:
        """Of `count` prompts from number `first`: the leading ones fitted, the others like their mean."""
        guess = Length(self.words(isl))
        if self.count is None:
            return [guess] * count
        some = min(count, FITTED_BY_SERVER if self.by_requests else FITTED)
        texts = [partial(self.text, first + i, twin=self.by_requests) for i in range(some)]
        rounds = 3 if self.by_requests else 99
        fitted = fit(texts, self.count, self.goal(isl, osl), guess.words, self.per_word, rounds=rounds)
        if not fitted:
            return [guess] * count
        words = [length.words for length in fitted]
        tight = self.context is not None and isl + osl > 0.97 * self.context
        mean = Length(min(words) if tight else round(sum(words) / len(words)))
        return fitted + [mean] * (count - some)

    def plan(
        self,
        count: int,
        isl: int,
        lengths: Sequence[int],
        concurrency: int,
        mode: str,
        offsets: list[float] | None = None,
    ) -> dict[str, Any]:
        """A plan for one client process; every prompt is new, and has `isl` tokens as well as can be had."""
        first, self.next_index = self.next_index, self.next_index + count
        sized = self.lengths(first, count, isl, max(lengths))
        return self.order(first, sized, lengths, concurrency, mode) | {"offsets": offsets}

    def order(
        self, first: int, sized: Sequence[Length], lengths: Sequence[int], concurrency: int, mode: str
    ) -> dict[str, Any]:
        """A plan for prompts of these sizes, from number `first` on."""
        return {
            "words": [length.words for length in sized],
            "cuts": [length.cut for length in sized],
            "lengths": list(lengths),
            "length_fields": ["max_tokens"],
            "first": first,
            "seed": self.seed,
            "kind": self.kind,
            "chat": self.chat,
            "base": {"model": self.model, **self.fields},
            "concurrency": concurrency,
            "mode": mode,
            "offsets": None,
            "keep_text": self.keep_text,
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


def served_models(base_url: str) -> dict[str, int | None] | None:
    """Ids of /v1/models with their longest context, where it says so; None when the server does not list them.

    EnvironmentNotReady when nobody answers.
    """
    status, body = get(base_url.rstrip("/").removesuffix("/v1"), "/v1/models", 10.0)
    if status == 0:
        raise EnvironmentNotReady(
            f"no server at {base_url}: {body.decode('utf-8', 'replace')}",
            hint=f"Is it up, and is this its port? curl -s {base_url.rstrip('/')}/v1/models",
        )
    try:
        entries = json.loads(body)["data"] if status == 200 else None
        found = {str(entry["id"]): entry.get("max_model_len") for entry in entries or ()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return {name: length if isinstance(length, int) else None for name, length in found.items()} or None


def open_dialect(base_url: str, wanted: str | None, *, chat: bool, kind: str, seed: str) -> Dialect:
    """With `wanted`, else the first model that the server lists. A name that it does not list is left to its answer:
    transformers serve lists the cache and not what it serves, and LoRA adapters may be missing too.
    """
    listed = served_models(base_url)
    name = wanted if wanted is not None else next(iter(listed or ()), "-")
    return Dialect(
        model=name,
        chat=chat,
        fields={},
        source=None,
        kind=kind,
        seed=seed,
        context=(listed or {}).get(name),
        listed=tuple(listed) if listed else None,
        named=wanted is not None,
    )


def negotiate(
    pool: Pool, dialect: Dialect, base_url: str, *, isl: int, osl: int, tokenizer: Path | None = None
) -> Dialect:
    """Walk down the ladder until the server counts tokens, then find out how to size prompts.

    `tokenizer`: a tokenizer.json or a folder with one. SweeperError with the server's words; UsageError for a model
    that it does not have.
    """
    best: Dialect | None = None
    problem = ""
    start = Length(max(4, min(FIRST_WORDS, isl // 4)))
    for fields in LADDER:
        tried = replace(dialect, fields=fields)
        record = _ask(pool, tried, start, min(osl, 16))
        dialect.next_index = tried.next_index
        error = record["error"]
        if error and error.startswith("HTTP 404") and not tried.chat and "model" not in error.lower():
            path = pool.target.path.replace("/v1/completions", "/v1/chat/completions")
            pool.retarget(replace(pool.target, path=path))
            again = replace(dialect, chat=True)
            return negotiate(pool, again, base_url, isl=isl, osl=osl, tokenizer=tokenizer)
        if error and (renamed := _other_name(dialect, error, base_url)):
            return negotiate(pool, renamed, base_url, isl=isl, osl=osl, tokenizer=tokenizer)
        if error:
            problem = problem or error
            if not error.startswith(("HTTP 400", "HTTP 422")) or _about_length(error):
                break
            continue
        tried.source = record["source"]
        _learn(tried, record, start)
        if best is None or RANK[tried.source] < RANK[best.source]:
            best = tried
        if RANK[best.source] <= 1 or (fields is not LADDER[0] and RANK[tried.source] <= 2):
            break
    if best is None:
        raise SweeperError(f"the first request failed: {problem}")
    best.next_index = dialect.next_index
    best.keep_text = best.source == "chunks" and tokenizer is not None
    _find_counter(pool, best, base_url, isl, tokenizer)
    return best


def _about_length(error: str) -> bool:
    return "context length" in error or ("maximum" in error and "tokens" in error)


def _other_name(dialect: Dialect, error: str, base_url: str) -> Dialect | None:
    """The dialect with the name that the error tells, where none was asked for. UsageError for a model not served."""
    pinned = _PINNED.search(error)
    if pinned and not dialect.named:
        return replace(dialect, model=pinned[1], named=True)
    if not (pinned or (error.startswith("HTTP 404") and "model" in error.lower())):
        return None
    if dialect.model == "-" and not dialect.named:
        raise UsageError(f"{base_url} does not list its models", hint="Name one: --model NAME")
    names = (pinned[1],) if pinned else dialect.listed or ()
    hint = "It serves: " + ", ".join(names) if names else error
    raise UsageError(f"no model '{dialect.model}' on {base_url}", hint=hint)


def _ask(pool: Pool, dialect: Dialect, length: Length, osl: int) -> dict[str, Any]:
    first, dialect.next_index = dialect.next_index, dialect.next_index + 1
    record = pool.run([dialect.order(first, [length], [osl], 1, "closed")]).records[0]
    return {**record, "number": first}


def _learn(dialect: Dialect, record: dict[str, Any], length: Length) -> None:
    stamps, totals = record["stamps"], record["totals"]
    if len(stamps) > 1 and stamps[-1] > stamps[0]:
        dialect.tok_s = (totals[-1] - totals[0]) / (stamps[-1] - stamps[0])
    if record["prompt_tokens"]:
        dialect.reports_prompt = True
        dialect.per_word, dialect.fixed = record["prompt_tokens"] / length.words, 0.0


def _find_counter(pool: Pool, dialect: Dialect, base_url: str, isl: int, tokenizer: Path | None) -> None:
    """Who counts prompt tokens from here on: tokenizer, `/tokenize`, or the server's answers."""
    root = base_url.rstrip("/").removesuffix("/v1")
    ways: list[Callable[[], Count]] = [lambda: server_count(root, dialect.model, pool.target.headers)]
    if tokenizer is not None:
        ways.insert(0, lambda: tokenizer_count(tokenizer))
    for way in ways:
        if _take(pool, dialect, way(), isl):
            return
    if not dialect.reports_prompt:
        dialect.notes.append("the server does not report prompt tokens: input length is an estimate")
        return
    dialect.count, dialect.by_requests = partial(_count_by_asking, pool, dialect), True
    _grow(pool, dialect, isl)


def _take(pool: Pool, dialect: Dialect, count: Count, isl: int) -> bool:
    """Use `count` if it agrees with the server on two short prompts, but for what every prompt has in addition."""
    small = max(4, min(FIRST_WORDS, isl // 4))
    sizes = (Length(max(4, small // 2)), Length(small))
    added: list[int] = []
    for length in sizes:
        number = dialect.next_index
        got = count([dialect.text(number, length)])
        if got is None:
            return False
        if dialect.reports_prompt:
            record = _ask(pool, dialect, length, 1)
            if not record["prompt_tokens"]:
                return False
            added.append(record["prompt_tokens"] - got[0])
        dialect.per_word = got[0] / length.words
    if added and max(added) - min(added) > TRUSTED:
        dialect.notes.append("a tokenizer that differs from the server's was not used")
        return False
    dialect.fixed = float(added[-1]) if added else 0.0
    dialect.count = shifted(count, added[-1]) if added else count
    return True


def _count_by_asking(pool: Pool, dialect: Dialect, texts: Sequence[str]) -> list[int] | None:
    """One token after each of these texts; their first lines are those of twins, so nothing useful stays cached."""
    plan = dialect.order(0, [Length(4)] * len(texts), [1] * len(texts), min(4, len(texts)), "closed")
    records = pool.run([plan | {"texts": list(texts)}]).records
    found = {record["index"]: record["prompt_tokens"] for record in records if not record["error"]}
    if dialect.context:
        too_long = int(1.05 * dialect.context)
        found |= {r["index"]: too_long for r in records if r["error"] and _about_length(r["error"])}
    return [found[i] for i in range(len(texts))] if len(found) == len(texts) and all(found.values()) else None


def _grow(pool: Pool, dialect: Dialect, isl: int) -> None:
    """Tokens a word from longer and longer prompts, up to the length asked for: a long one is never guessed from few
    words, so it does not overrun the context.
    """
    before = 0
    while before < isl // 2:
        size = min(isl, max(8 * before, 512), int(0.95 * (dialect.context or 1 << 30)))
        length = Length(dialect.words(size))
        record = _ask(pool, dialect, length, 1)
        if record["error"] or not record["prompt_tokens"]:
            return
        dialect.per_word, before = (record["prompt_tokens"] - dialect.fixed) / length.words, size
