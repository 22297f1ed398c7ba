"""Greedy answers to a few prompts, kept whole, each looked at by `core.sanity`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sweeper.core.errors import BadFile
from sweeper.core.observations import OutputSample
from sweeper.core.sanity import is_right, problem
from sweeper.probes.openai import Client

MAX_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`expect`: regular expression of a right answer, None where none is known."""

    prompt: str
    expect: str | None = None


def prompts_for(model: str) -> tuple[Prompt, ...]:
    """The model folder's own `prompts.json` (canaries carry one), else general knowledge. Raises BadFile."""
    own = Path(model) / "prompts.json"
    if own.is_file():
        return _parse(own.read_text("utf-8"), str(own))
    shipped = resources.files("sweeper.data") / "sanity.json"
    return _parse(shipped.read_text("utf-8"), "sweeper/data/sanity.json")


def ask(client: Client, prompts: Sequence[Prompt], *, max_tokens: int = MAX_TOKENS) -> Iterator[OutputSample]:
    """One sample per prompt, in order. Raises RequestProblem."""
    for item in prompts:
        answer = client.complete(item.prompt, max_tokens=max_tokens)
        yield OutputSample(
            prompt=item.prompt,
            text=answer.text,
            tokens=answer.tokens,
            finish_reason=answer.finish_reason,
            problem=problem(answer.text),
            right=is_right(answer.text, item.expect),
        )


def _parse(text: str, path: str) -> tuple[Prompt, ...]:
    try:
        rows = json.loads(text)
        rows = rows["prompts"] if isinstance(rows, dict) else rows
        return tuple(
            Prompt(prompt=str(row["prompt"]), expect=row.get("expect") or row.get("expect_regex")) for row in rows
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(path, f"not a list of {{prompt, expect}} objects: {error}") from None
