"""Static batching over the reference model: what waits when a batch begins is served together, as one batch."""

from __future__ import annotations

import queue
import random
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.check_faults.model import Cache, Model

LINGER_S = 0.004
MAX_BATCH = 16
COLLAPSE_TOKEN = 5
"""The token that a collapsed generation repeats."""
_COLLAPSED = (COLLAPSE_TOKEN, -0.001, [(COLLAPSE_TOKEN, -0.001)])


@dataclass(slots=True)
class Job:
    """One request: `tokens` greedy tokens after `ids`, with the `top` best log-probabilities of each."""

    ids: list[int]
    tokens: int
    top: int
    score_prompt: bool = False
    collapse_at: int | None = None
    answer: Future[Answer] = field(default_factory=Future)


@dataclass(slots=True)
class Answer:
    """Per prompt token and per generated token: (id, log-probability, [(id, log-probability)...])."""

    prompt: list[Any]
    generated: list[Any]


class Engine:
    """One thread runs batches; `submit` is thread-safe."""

    def __init__(self, model: Model, seed: int = 0) -> None:
        self.model = model
        self.generations = 0
        self._draw = random.Random(seed)
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Answer:
        rate = self.model.faults.collapse_rate
        if rate and job.tokens > 1 and self._draw.random() < rate:
            job.collapse_at = self._draw.randrange(1, 5)
        self._waiting.put(job)
        return job.answer.result()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (job := self._waiting.get()) is not None:
            batch = [job]
            try:
                while len(batch) < MAX_BATCH and (more := self._waiting.get(timeout=LINGER_S)) is not None:
                    batch.append(more)
            except queue.Empty:
                pass
            try:
                answers = serve(self.model, batch)
            except Exception as error:  # the requests fail, the server lives on
                for item in batch:
                    item.answer.set_exception(error)
                continue
            for item, answer in zip(batch, answers, strict=True):
                item.answer.set_result(answer)


@torch.inference_mode()
def serve(model: Model, jobs: list[Job]) -> list[Answer]:
    """One batch to its end. What a prompt gives at one kind of batch is computed once: the model is deterministic."""
    model.batch = len(jobs)
    new: dict[tuple[int, ...], Job] = {}
    for job in jobs:
        if len(model.answers.get(_key(model, job), ())) < job.tokens:
            new[tuple(job.ids)] = job
    for job, made in zip(new.values(), _generate(model, list(new.values())), strict=True):
        model.answers[_key(model, job)] = made
    answers = []
    for job in jobs:
        made = model.answers[_key(model, job)][: job.tokens] if job.tokens else []
        if job.collapse_at is not None:
            made = [row if place < job.collapse_at else _COLLAPSED for place, row in enumerate(made)]
        answers.append(_scored(job, _prefilled(model, job.ids)[1]) if job.score_prompt else Answer([], []))
        answers[-1].generated.extend(made)
    return answers


def _key(model: Model, job: Job) -> tuple[tuple[int, ...], bool]:
    return tuple(job.ids), model.large()


def _generate(model: Model, jobs: list[Job]) -> list[list[Any]]:
    """(id, log-probability, best ones) of every greedy token, all prompts in step."""
    if not jobs:
        return []
    steps = max(job.tokens for job in jobs)
    rows = [_prefilled(model, job.ids) for job in jobs]
    cache = model.new_cache(len(jobs), max(len(job.ids) for job in jobs) + steps)
    for row, (own, _) in enumerate(rows):
        _copy(own, cache, row)
    made: list[list[Any]] = [[] for _ in jobs]
    last = torch.stack([logits[-1] for _, logits in rows])
    for step in range(steps):
        table = torch.log_softmax(last, -1)
        best = table.argmax(-1)
        values, tops = table.gather(1, best[:, None])[:, 0].tolist(), _tops(table, jobs[0].top)
        for row, token in enumerate(best.tolist()):
            made[row].append((token, values[row], tops[row]))
        if step + 1 < steps:
            last = model.forward(best[:, None], cache)[:, 0]
    return made


def _prefilled(model: Model, ids: list[int]) -> tuple[Cache, Tensor]:
    """Keys, values and logits of one prompt; computed once, as a prefix cache would."""
    key = (tuple(ids), model.large())
    if key not in model.prefixes:
        cache = model.new_cache(1, len(ids))
        model.prefixes[key] = (cache, model.forward(torch.tensor([ids]), cache)[0])
    return model.prefixes[key]


def _copy(source: Cache, target: Cache, row: int) -> None:
    length = int(source.lengths[0])
    for mine, theirs in zip((*target.keys, *target.values), (*source.keys, *source.values), strict=True):
        mine[row, :, :length] = theirs[0]
    target.lengths[row] = length


def _scored(job: Job, logits: Tensor) -> Answer:
    table = torch.log_softmax(logits[: len(job.ids) - 1], -1)
    tops = _tops(table, job.top)
    values = table.gather(1, torch.tensor(job.ids[1:])[:, None])[:, 0].tolist()
    rows = [(token, value, top) for token, value, top in zip(job.ids[1:], values, tops, strict=True)]
    return Answer([None, *rows], [])


def _tops(table: Tensor, count: int) -> list[list[tuple[int, float]]]:
    values, ids = table.topk(count, -1)
    return [list(zip(a, b, strict=True)) for a, b in zip(ids.tolist(), values.tolist(), strict=True)]
