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
    """One batch to its end: all prompts at once, then one token per row and step."""
    steps, model.batch = max(job.tokens for job in jobs), len(jobs)
    rows = [_prefilled(model, job.ids) for job in jobs]
    cache = model.new_cache(len(jobs), max(len(job.ids) for job in jobs) + steps)
    for row, (own, _) in enumerate(rows):
        _copy(own, cache, row)
    answers = [_scored(job, logits) for job, (_, logits) in zip(jobs, rows, strict=True)]
    last = torch.stack([logits[-1] for _, logits in rows])
    for step in range(steps):
        table = torch.log_softmax(last, -1)
        best = table.argmax(-1)
        for row, job in enumerate(jobs):
            if job.collapse_at is not None and step >= job.collapse_at:
                table[row] = torch.log_softmax(torch.zeros_like(table[row]).index_fill_(0, _COLLAPSE, 12.0), -1)
                best[row] = COLLAPSE_TOKEN
        tops = _tops(table, jobs[0].top)
        for row, job in enumerate(jobs):
            if step < job.tokens:
                answers[row].generated.append((int(best[row]), float(table[row, best[row]]), tops[row]))
        if step + 1 < steps:
            last = model.forward(best[:, None], cache)[:, 0]
    return answers


def _prefilled(model: Model, ids: list[int]) -> tuple[Cache, Tensor]:
    """Keys, values and logits of one prompt; computed once per prompt and batch size, as a prefix cache would."""
    key = (tuple(ids), model.batch)
    if key not in model.prefixes:
        cache = model.new_cache(1, len(ids))
        model.prefixes[key] = (cache, model.forward(torch.tensor([ids]), cache)[0])
    return model.prefixes[key]


def _copy(source: Cache, target: Cache, row: int) -> None:
    length = int(source.lengths[0])
    for mine, theirs in zip((*target.keys, *target.values), (*source.keys, *source.values), strict=True):
        mine[row, :, :length] = theirs[0]
    target.lengths[row] = length


_COLLAPSE = torch.tensor([COLLAPSE_TOKEN])


def _scored(job: Job, logits: Tensor) -> Answer:
    if not job.score_prompt:
        return Answer([], [])
    table = torch.log_softmax(logits[: len(job.ids) - 1], -1)
    tops = _tops(table, job.top)
    values = table.gather(1, torch.tensor(job.ids[1:])[:, None])[:, 0].tolist()
    rows = [(token, value, top) for token, value, top in zip(job.ids[1:], values, tops, strict=True)]
    return Answer([None, *rows], [])


def _tops(table: Tensor, count: int) -> list[list[tuple[int, float]]]:
    values, ids = table.topk(count, -1)
    return [list(zip(a, b, strict=True)) for a, b in zip(ids.tolist(), values.tolist(), strict=True)]
