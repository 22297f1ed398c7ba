"""The presets: 40 questions with checkable answers, code that must pass its tests, perplexity of fixed texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Any

from sweeper.accuracy.ask import Asker
from sweeper.accuracy.result import AccuracyResult, Item, of_items
from sweeper.accuracy.sandbox import run_python
from sweeper.core.accuracy import same_number
from sweeper.core.errors import EnvironmentNotReady, UsageError
from sweeper.probes.openai import RequestProblem
from sweeper.probes.textscores import score_text

PRESETS = ("accuracy-40", "codegen-pass1", "ppl-proxy")
_FILES = {"accuracy-40": "accuracy-40.json", "codegen-pass1": "codegen.json", "ppl-proxy": "ppl-texts.json"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """`max_tokens` per answer: a reasoning model needs room before its last line."""

    max_tokens: int = 2048
    concurrency: int = 8


def load_preset(name: str) -> dict[str, Any]:
    """The shipped file of a preset. Raises UsageError for an unknown name."""
    if name not in _FILES:
        raise UsageError(f"no accuracy preset '{name}'", hint=f"Presets: {', '.join(PRESETS)}")
    content: dict[str, Any] = json.loads(
        (resources.files("sweeper.data") / "accuracy" / _FILES[name]).read_text("utf-8")
    )
    return content


def natural_texts() -> tuple[str, ...]:
    """The fixed texts of `ppl-proxy`, also for comparing a cell of a run with its reference cell."""
    return tuple(item["text"] for item in load_preset("ppl-proxy")["texts"])


def run_preset(
    base_url: str, model: str | None, name: str, options: RunOptions | None = None, say: Say = lambda text: None
) -> AccuracyResult:
    """Raises UsageError for an unknown preset, EnvironmentNotReady when the server does not answer."""
    content, options = load_preset(name), options or RunOptions()
    if name == "ppl-proxy":
        return _perplexity(base_url, model, content, say)
    asker = Asker(base_url, model)
    judge = _judge_code if name == "codegen-pass1" else _judge_answer
    try:
        items = _ask_all(asker, content, judge, options, say)
        cut = asker.room and f"the server's context left {asker.room} tokens for an answer, not {options.max_tokens}"
        return of_items(name, asker.model, "sweeper", items).model_copy(update={"note": cut})
    finally:
        asker.close()


def _ask_all(
    asker: Asker, content: dict[str, Any], judge: Callable[[dict[str, Any], str], Item], options: RunOptions, say: Say
) -> list[Item]:
    def one(item: dict[str, Any]) -> Item | RequestProblem:
        prompt = f"{content['instruction']}\n\n{item.get('question') or item['prompt']}"
        try:
            return judge(item, asker.ask(prompt, options.max_tokens))
        except RequestProblem as problem:
            return problem

    tasks = content["items"]
    first = one(tasks[0])
    found = [first]
    with ThreadPoolExecutor(options.concurrency) as pool:
        for answer in pool.map(one, tasks[1:]):
            found.append(answer)
            say(f"{len(found)} of {len(tasks)}")
    failed = [answer for answer in found if isinstance(answer, RequestProblem)]
    if failed:
        # A question that was not answered is neither right nor wrong: a share over the rest would mislead.
        raise EnvironmentNotReady(f"{len(failed)} of {len(tasks)} questions were not answered: {failed[0].message}")
    return [answer for answer in found if isinstance(answer, Item)]


def final_answer(text: str) -> str | None:
    """What follows the last `Answer:`, else the last line; None for an empty reply. Thoughts are cut off."""
    text = text.rsplit("</think>", 1)[-1]
    marked = re.findall(r"(?im)^[\s*_#>-]*answer[\s*_]*:[\s*_]*(.+?)[\s*_]*$", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = marked[-1] if marked else (lines[-1] if lines else None)
    return said.strip().strip("`*\"' ").rstrip(".") if said else None


def _judge_answer(item: dict[str, Any], text: str) -> Item:
    said = final_answer(text)
    if said is None:
        return Item(id=item["id"], score=0, why="empty reply")
    right = same_number(said, item["answer"]) if item["kind"] == "number" else _same_word(said, item["answer"])
    return Item(id=item["id"], score=float(right), said=said[:200], why=None if right else f"not {item['answer']}")


def _same_word(said: str, wanted: str) -> bool:
    """The wanted word stands in a short answer, as a word of its own."""
    return len(said) <= 80 and re.search(rf"(?i)(?<!\w){re.escape(wanted)}(?!\w)", said) is not None


def code_of(text: str, prompt: str) -> str:
    """The last fenced block, else the reply itself; a bare function body is put under its signature."""
    text = text.rsplit("</think>", 1)[-1]
    blocks = re.findall(r"```(?:python|py)?[^\n]*\n(.*?)(?:```|\Z)", text, re.DOTALL)
    code = blocks[-1] if blocks else text
    return code if "def " in code else prompt + code


def _judge_code(item: dict[str, Any], text: str) -> Item:
    ran = run_python(f"{code_of(text, item['prompt'])}\n\n{item['tests']}")
    why = None if ran.ok else ran.problem
    if not ran.isolated:
        why = f"{why or 'passed'} (run without network isolation: unshare is not permitted here)"
    return Item(id=item["id"], score=float(ran.ok), why=why)


def _perplexity(base_url: str, model: str | None, content: dict[str, Any], say: Say) -> AccuracyResult:
    texts = [item["text"] for item in content["texts"]]
    say(f"{len(texts)} texts")
    scores = score_text(base_url, model, texts)
    if scores.nll is None or math.isnan(scores.nll):
        raise EnvironmentNotReady(f"{base_url}: {scores.problem or 'NaN in the log-probabilities'}")
    return AccuracyResult(
        preset="ppl-proxy", model=scores.model, source="sweeper", n=0, right=0, nll=scores.nll, tokens=scores.tokens
    )
