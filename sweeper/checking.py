"""`sweeper check`: golden vectors against a running server, prefill and decode, at several batch sizes.

Decode is scored along golden's own continuation: a server is followed until its greedy token leaves golden's, then the
request is repeated from golden's next token on, so that a near-tie costs one position and not the rest. Every decode
request is also a generation that is looked at for collapse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeper.canary import golden as golden_file
from sweeper.canary.golden import Case, GoldenFile
from sweeper.core.errors import EnvironmentNotReady, UsageError
from sweeper.core.numerics import (
    MIN_GENERATIONS,
    TRAINED_KL_TYPICAL,
    UNTOLD_KL_TYPICAL,
    Check,
    Figures,
    Generation,
    Limits,
    Position,
    Top,
    WeightOnly,
    figures,
    grade,
    went_own_way,
)
from sweeper.core.numerics_routing import Expert
from sweeper.core.sanity import problem
from sweeper.probes.openai import Client, RequestProblem
from sweeper.probes.scoring import Scorer, Scores, says_nan
from sweeper.probes.text import prompts_for

BATCHES = (1, 4, 8)
AS_WEIGHT_ONLY = {"nvfp4": "nvfp4-w4a16"}
"""W4A4 files whose tolerance allows for activations in 4 bit, and the format whose tolerance holds without those."""
FEWER = (10, 5, 1)
"""Candidates to ask for where a server lists fewer than golden."""
_LISTS = re.compile(r"(?i)log_?probs?|top_n|candidates")
_VOCABULARY = re.compile(r"(?i)vocab|token id|out of range")
MAX_RESTARTS = 3
MAX_FOLLOWED = 24
"""Restarts of one round: a broken server leaves golden's path everywhere, and that is known after a few."""
GENERATION_TOKENS = 24
TEXT_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """`generations`: free generations looked at for collapse; 74 see a 4 % rate with 95 % probability."""

    batches: tuple[int, ...] = BATCHES
    generations: int = MIN_GENERATIONS + 6
    text_means_something: bool = True
    weight_only: bool = False
    """The server is known to multiply weights only: activations of the format's own width are no excuse."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """What one check gathers."""

    groups: dict[str, Figures] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)
    failed: list[RequestProblem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    asked: int = 0
    top_k: int = 0
    """Candidates that golden and server both list."""

    def keep(self, answers: list[Scores | RequestProblem]) -> list[Scores | None]:
        """The answers, None for those that failed; the failures are counted."""
        self.asked += len(answers)
        self.failed += [answer for answer in answers if isinstance(answer, RequestProblem)]
        return [None if isinstance(answer, RequestProblem) else answer for answer in answers]


def check_server(
    base_url: str,
    model: str | None,
    golden_path: Path | None,
    options: CheckOptions | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Check:
    """The whole check. Raises BadFile for the golden file, UsageError for a model that is not served,
    EnvironmentNotReady when nobody answers."""
    options = options or CheckOptions()
    golden = golden_file.load(golden_path) if golden_path else None
    name = _served(base_url, model)
    if golden is None:
        why = "numerics: no golden vectors were given (--golden FILE; sweeper canary build makes them)"
        return _text_only(base_url, name, options, say, _Found(unchecked=[why]))
    found = _numeric(base_url, name, golden, options, say)
    if not found.groups and not any(says_nan(item) for item in found.failed):
        if all(case.prompt is None for case in golden.cases):
            found.unchecked.append("text: the weights are drawn, their text means nothing")
        else:
            return _text_only(base_url, name, options, say, found)
    graded = _graded(found, _limits(golden, options.weight_only))
    if golden.quant not in AS_WEIGHT_ONLY or options.weight_only or graded.verdict != "right":
        return graded
    strict = _graded(found, _limits(golden, weight_only=True))
    return replace(graded, weight_only=WeightOnly(verdict=strict.verdict, reasons=strict.reasons))


def _limits(golden: GoldenFile, weight_only: bool = False) -> Limits:
    """The file's tolerances; trained weights (their prompts are text) have a tighter one for the typical position."""
    trained = any(case.prompt is not None for case in golden.cases)
    like = AS_WEIGHT_ONLY.get(golden.quant) if weight_only else None
    if like:
        told = golden_file.TOLERANCES[like].model_dump(exclude={"source"})
        return Limits(**{**told, "kl_typical": TRAINED_KL_TYPICAL[like] if trained else None})
    untold = UNTOLD_KL_TYPICAL.get(golden.quant) if trained else None
    told = golden.tolerance.model_dump(exclude={"source"})
    return Limits(**{**told, "kl_typical": golden.tolerance.kl_typical or untold})


def _served(base_url: str, model: str | None) -> str:
    client = Client(base_url, model or "")
    try:
        models = client.served_models()
        if model and models and model not in models:
            _must_answer(client, base_url, model, models)
    finally:
        client.close()
    if model is None and not models:
        raise EnvironmentNotReady(
            f"{base_url} does not answer /v1/models", hint="Is the server up? Name the model with --model."
        )
    return model or models[0]


def _must_answer(client: Client, base_url: str, model: str, models: list[str]) -> None:
    """Some servers answer to any name; one that does not must not look like a broken one."""
    try:
        client.complete("1", max_tokens=1)
    except RequestProblem as refusal:
        if refusal.status is not None and refusal.status < 500:
            raise UsageError(
                f"{base_url} serves {', '.join(models)}, not {model}", hint="Leave out --model, or name one of them."
            ) from None


def _graded(found: _Found, limits: Limits | None) -> Check:
    """Grades what was found. A request that fails on the server's side is a fault; one that it refuses, a gap."""
    if any(says_nan(item) for item in found.failed):
        found.generations.append(Generation(ids=(), nan=True))
    broken = [item for item in found.failed if item.status is None or item.status >= 500]
    refused = [item for item in found.failed if item not in broken]
    faults = [f"{len(broken)} of {found.asked} requests failed: {broken[0].message}"] if broken else []
    gaps = [f"{len(refused)} of {found.asked} requests refused: {refused[0].message}"] if refused else []
    return grade(found.groups, found.generations, limits, unchecked=[*found.unchecked, *gaps], faults=faults)


def _numeric(base_url: str, name: str, golden: GoldenFile, options: CheckOptions, say: Callable[[str], None]) -> _Found:
    found = _Found(top_k=golden.top_k)
    scorer = _scorer(base_url, name, golden, found)
    try:
        if scorer.dialect:
            for batch in options.batches:
                say(f"prefill, {batch} at a time")
                _prefill(scorer, golden.cases, batch, found)
        else:
            found.unchecked.append("prefill: the server scores no prompts (prompt_logprobs, echo or /generate)")
            if scorer.refusal and (scorer.refusal.status or 500) >= 500:
                found.keep([scorer.refusal])
        long = [case for case in golden.cases if case.greedy_ids]
        if not long:
            found.unchecked.append("decode: the golden file holds no continuation")
        for batch, count in _shares(options) if long else []:
            say(f"decode, {batch} at a time, {count} generations")
            if not _decode(scorer, long, batch, count, options, found):
                break
    finally:
        scorer.close()
    return found


def _scorer(base_url: str, name: str, golden: GoldenFile, found: _Found) -> Scorer:
    """One that asks for as many candidates as the server lists, golden's number at most.

    Raises UsageError where the server has fewer tokens than the golden prompts: another model.
    """
    ids = golden.cases[0].prompt_ids
    for top_k in [golden.top_k, *(number for number in FEWER if number < golden.top_k)]:
        scorer = Scorer(base_url, name, top_k=top_k)
        told = None if scorer.detect(ids) else _one_token(scorer, ids)
        if told and _about(told, _VOCABULARY):
            scorer.close()
            raise UsageError(
                f"{base_url} does not know the golden prompts' tokens: {told.message}",
                hint="The golden file belongs to another checkpoint than the one that is served.",
            )
        if told is None or not _about(told, _LISTS):
            if top_k < golden.top_k:
                found.top_k = top_k
                found.unchecked.append(f"the server lists {top_k} candidates a token, golden {golden.top_k}")
            return scorer
        scorer.close()
    return Scorer(base_url, name, top_k=golden.top_k)


def _about(told: RequestProblem, words: re.Pattern[str]) -> bool:
    return told.status is not None and 400 <= told.status < 500 and words.search(told.message) is not None


def _one_token(scorer: Scorer, ids: list[int]) -> RequestProblem | None:
    """What a server that scores no prompts says to one generated token with as many candidates."""
    try:
        scorer.greedy(ids, 1)
    except RequestProblem as told:
        return told
    return None


def _shares(options: CheckOptions) -> list[tuple[int, int]]:
    """(batch, generations): two rounds for each batch size, at least 8, and the rest at the largest."""
    smaller = [(batch, max(8, 2 * batch)) for batch in sorted(options.batches)[:-1]]
    largest = max(options.batches)
    return [*smaller, (largest, max(2 * largest, options.generations - sum(count for _, count in smaller)))]


def _prefill(scorer: Scorer, cases: list[Case], batch: int, found: _Found) -> None:
    jobs = [case for case in cases for _ in range(max(1, batch // len(cases)))]
    positions = []
    for case, scores in zip(jobs, found.keep(scorer.prompts([c.prompt_ids for c in jobs], batch)), strict=True):
        routed = _routed(case)
        for index, expected in enumerate(case.prompt_logprobs):
            if scores is not None and expected is not None and index < len(scores.logprobs):
                positions.append(
                    Position(
                        golden=expected,
                        measured=scores.logprobs[index],
                        golden_top=tuple(case.prompt_top[index] or ())[: found.top_k],
                        measured_top=scores.tops[index],
                        experts=routed.get(index - 1, ()),
                    )
                )
    if positions:
        found.groups[f"prefill batch {batch}"] = figures(positions, typical=True)


def _routed(case: Case) -> dict[int, tuple[Expert, ...]]:
    """By place in the prompt: the experts of the token there, which decide what is foretold of the next one."""
    places: dict[int, tuple[Expert, ...]] = {}
    for layer, rows in case.prompt_experts.items():
        for place, experts in enumerate(rows):
            places[place] = (*places.get(place, ()), *((layer, expert) for expert in experts))
    return places


def _decode(
    scorer: Scorer, long: list[Case], batch: int, count: int, options: CheckOptions, found: _Found
) -> list[Position]:
    """`count` generations at `batch` in flight, then restarts where they left golden's path. Empty: none answered."""
    jobs = [(long[number % len(long)], 0) for number in range(count)]
    positions: list[Position] = []
    for attempt in range(MAX_RESTARTS + 1):
        if not jobs:
            break
        length = min(GENERATION_TOKENS, max(len(case.greedy_ids) - start for case, start in jobs))
        asked = [case.prompt_ids + case.greedy_ids[:start] for case, start in jobs]
        following: dict[tuple[str, int], tuple[Case, int]] = {}
        for (case, start), scores in zip(jobs, found.keep(scorer.many(asked, length, batch)), strict=True):
            if scores is None:
                continue
            if attempt == 0:
                found.generations.append(_generation(case, scores, options))
            left = _follow(case, start, scores, positions, found.top_k)
            if left is not None:
                following[case.id, left] = (case, left)
        jobs = list(following.values())[: min(count, MAX_FOLLOWED)]
    if positions:
        found.groups[f"decode batch {batch}"] = figures(positions)
    return positions


def _follow(case: Case, start: int, scores: Scores, found: list[Position], top_k: int) -> int | None:
    """Score the positions that share golden's prefix; the place after a divergence, or None at the end."""
    for offset, token in enumerate(scores.ids):
        index = start + offset
        if index >= len(case.greedy_ids):
            return None
        wanted = case.greedy_ids[index]
        top = scores.tops[offset] if offset < len(scores.tops) else ()
        measured = scores.logprobs[offset] if token == wanted else dict(top).get(wanted, -math.inf)
        found.append(
            Position(
                golden=case.greedy_logprobs[index],
                measured=measured,
                golden_top=tuple(case.greedy_top[index][:top_k]) if index < len(case.greedy_top) else (),
                measured_top=_emitted_first(top, token),
                place=(case.id, index),
            )
        )
        if token != wanted:
            return index + 1 if index + 1 < len(case.greedy_ids) else None
    return None


def _emitted_first(top: Top, token: int) -> Top:
    """A greedy server's token is its best one, whatever its list says.

    The sampler may be wrong where the logits are right.
    """
    if not top or top[0][0] == token:
        return top
    return ((token, dict(top).get(token, top[-1][1])), *(entry for entry in top if entry[0] != token))


def _generation(case: Case, scores: Scores, options: CheckOptions) -> Generation:
    golden_fine = options.text_means_something and case.greedy_text and problem(case.greedy_text) is None
    return Generation(
        ids=scores.ids,
        golden_ids=tuple(case.greedy_ids[: len(scores.ids)]),
        text=scores.text,
        problem=problem(scores.text) if golden_fine and scores.text else None,
        nan=any(value is not None and math.isnan(value) for value in scores.logprobs),
        own_way=went_own_way(scores.ids, case.greedy_ids, [tuple(top) for top in case.greedy_top]),
    )


def _text_only(base_url: str, name: str, options: CheckOptions, say: Callable[[str], None], found: _Found) -> Check:
    """Without log-probabilities: only text can be looked at, over the completions or the chat route."""
    client = Client(base_url, name)
    prompts = prompts_for("")
    say(f"{options.generations} generations, text only")
    problems: list[RequestProblem] = []
    try:
        for number in range(options.generations):
            prompt = f"{number}. {prompts[number % len(prompts)].prompt}"
            try:
                answer = client.complete(prompt, max_tokens=TEXT_TOKENS)
            except RequestProblem as failure:
                problems.append(failure)
                if len(problems) > 2 and not found.generations:
                    break
                continue
            found.generations.append(Generation(ids=(), text=answer.text, problem=problem(answer.text)))
    finally:
        client.close()
    found.asked += len(problems) + len(found.generations)
    found.failed += problems
    if not found.generations:
        raise EnvironmentNotReady(
            f"{base_url}: {problems[0].message}", hint="Is the server up and the model name right?"
        )
    return _graded(found, None)


def as_json(check: Check) -> dict[str, Any]:
    """The object that `sweeper check --json` prints."""
    worst = check.groups[check.worst] if check.worst else None
    scored = [group for group in check.groups.values() if group.positions]
    agreements = [group.argmax_agreement for group in scored if group.argmax_agreement is not None]
    divergences = [group.kl_topk for group in scored if group.kl_topk is not None]
    return {
        "schema": 1,
        "verdict": check.verdict,
        "nll": {"measured": worst.nll_measured, "golden": worst.nll_golden, "shift": worst.shift} if worst else None,
        "kl_topk": max(divergences, default=None),
        "argmax_agreement": min(agreements, default=None),
        "degenerate": {
            "rate": check.degenerate / check.generations if check.generations else None,
            "n": check.generations,
        },
        "nan": check.nan,
        "unchecked": list(check.unchecked),
        "reasons": list(check.reasons),
        "weight_only": {"verdict": check.weight_only.verdict, "reasons": list(check.weight_only.reasons)}
        if check.weight_only
        else None,
        "groups": {name: _group_json(group) for name, group in check.groups.items()},
    }


def _group_json(group: Figures) -> dict[str, Any]:
    return {
        "positions": group.positions,
        "shift": group.shift,
        "kl_topk": group.kl_topk,
        "kl_typical": group.kl_typical,
        "argmax_agreement": group.argmax_agreement,
        "wrong_expert": asdict(group.wrong_expert) if group.wrong_expert else None,
        "nan": group.nan,
    }
