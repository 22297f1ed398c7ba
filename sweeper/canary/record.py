"""Record golden vectors: run the float32 reference over prompts, keep log-probabilities and continuations."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.canary import golden, reference
from sweeper.canary.golden import Case, GoldenFile, TopK
from sweeper.canary.weights import SPECIAL_IDS, successors
from sweeper.core.numerics import TRAINED_KL_TYPICAL

TOP_K = 20
"""Engines answer at most 20 by default (vLLM `max_logprobs`)."""

SPEAKING_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is computed: lengths of the scored prompts, number, length and continuation of the greedy ones."""

    lengths: tuple[int, ...]
    greedy: int
    greedy_length: int
    greedy_tokens: int


FULL = Plan(lengths=(12, 24, 24, 48, 48, 96, 96, 160, 256), greedy=12, greedy_length=16, greedy_tokens=24)
SHORT = Plan(lengths=(48, 80, 96, 96, 96), greedy=2, greedy_length=16, greedy_tokens=8)
"""For geometries above `SHORT_ABOVE` parameters, where a float32 forward costs minutes: lengths near each other,
because all are padded to the longest."""
SHORT_ABOVE = 300_000_000


def record(folder: Path, *, progress: Callable[[str], None] = lambda text: None) -> GoldenFile:
    """Golden vectors of a checkpoint made by `build`: text prompts for trained weights, chains for drawn ones."""
    import torch

    model = reference.load(folder)
    made = json.loads((folder / "sweeper_canary.json").read_text("utf-8"))
    with torch.no_grad():
        if made["weights"] == "stored":
            cases = _speaking_cases(model, folder)
        else:
            cases = _chain_cases(model, made["seed"], SHORT if _parameters(folder) > SHORT_ABOVE else FULL)
    progress(f"{len(cases)} cases")
    return GoldenFile(
        schema=1,
        served_name=folder.name,
        quant=made["quant"],
        model_type=model.config.model_type,
        seed=made["seed"],
        vocab_size=model.config.vocab_size,
        top_k=TOP_K,
        reference=f"transformers {type(model).__name__}, float32 from dequantised weights",
        versions=_versions(),
        tolerance=_tolerance(made["quant"], trained=made["weights"] == "stored"),
        mean_nll=round(golden.mean_nll(cases), 5),
        uniform_nll=round(math.log(model.config.vocab_size), 5),
        cases=cases,
    )


def _tolerance(quant: str, *, trained: bool) -> golden.Tolerance:
    typical = TRAINED_KL_TYPICAL[quant] if trained else None
    return golden.TOLERANCES[quant].model_copy(update={"kl_typical": typical})


def _parameters(folder: Path) -> int:
    """Roughly: bytes of the weights, two per parameter."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) // 2


def chain_prompts(vocab_size: int, seed: int, plan: Plan = FULL) -> list[list[int]]:
    """Prompts along the chain of `weights.successors`, each from its own place; the last ones are for continuing."""
    import numpy as np

    following = successors(vocab_size, seed)
    draw = np.random.default_rng([seed, 78])
    prompts = []
    for length in (*plan.lengths, *[plan.greedy_length] * plan.greedy):
        row = [int(draw.integers(SPECIAL_IDS, vocab_size))]
        while len(row) < length:
            row.append(following[row[-1]])
        prompts.append(row)
    return prompts


def _chain_cases(model: Any, seed: int, plan: Plan) -> list[Case]:
    prompts = chain_prompts(model.config.vocab_size, seed, plan)
    first = len(plan.lengths)
    routing = reference.Routing(model)
    scored = [*_score(model, prompts[:first], routing), *_score(model, prompts[first:], routing)]
    greedy = [None] * first + _continue(model, prompts[first:], plan.greedy_tokens)
    return [
        Case(id=f"chain-{number:02d}", prompt_ids=ids, **prompt, **(more or {}))
        for number, (ids, prompt, more) in enumerate(zip(prompts, scored, greedy, strict=True))
    ]


def text_prompts(folder: Path) -> list[tuple[str, str, list[int]]]:
    """(name, text, ids) of the prompts for trained weights, in the folder's own tokens."""
    from tokenizers import Tokenizer

    from sweeper.canary import corpus

    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [(name, text, encoder.encode(text).ids) for name, text in corpus.golden_prompts().items()]


def _speaking_cases(model: Any, folder: Path) -> list[Case]:
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cases = []
    for name, text, ids in text_prompts(folder):
        prompt, more = _score(model, [ids])[0], _continue(model, [ids], SPEAKING_TOKENS)[0]
        written = encoder.decode(more["greedy_ids"])
        cases.append(Case(id=name, prompt=text, prompt_ids=ids, greedy_text=written, **prompt, **more))
    return cases


def _score(model: Any, prompts: list[list[int]], routing: reference.Routing | None = None) -> list[dict[str, Any]]:
    """All prompts in one forward, padded on the right: causal models never look there."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in prompts])
    logits = model(input_ids=ids, use_cache=False).logits
    answers = []
    experts = {layer: tensor.view(*ids.shape, -1) for layer, tensor in routing.chosen.items()} if routing else {}
    for number, (row, values) in enumerate(zip(prompts, logits, strict=True)):
        table = torch.log_softmax(values[: len(row) - 1].double(), -1)
        chosen = table.gather(1, torch.tensor(row[1:])[:, None])[:, 0].tolist()
        answers.append(
            {
                "prompt_logprobs": [None, *(_round(value) for value in chosen)],
                "prompt_top": [None, *_top(table)],
                "prompt_experts": {layer: chosen[number, : len(row)].tolist() for layer, chosen in experts.items()},
            }
        )
    return answers


def _continue(model: Any, prompts: list[list[int]], tokens: int) -> list[dict[str, Any]]:
    """Greedy continuation of prompts of one length; stops for nothing."""
    import torch

    ids, cache = torch.tensor(prompts), None
    steps = []
    for _ in range(tokens):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        table = torch.log_softmax(output.logits[:, -1].double(), -1)
        ids = table.argmax(-1, keepdim=True)
        steps.append((ids[:, 0], table))
    return [
        {
            "greedy_ids": [int(chosen[row]) for chosen, _ in steps],
            "greedy_logprobs": [_round(float(table[row].max())) for _, table in steps],
            "greedy_top": [_top(table[row : row + 1])[0] for _, table in steps],
        }
        for row in range(len(prompts))
    ]


def _top(table: Any) -> list[TopK]:
    values, ids = table.topk(TOP_K, dim=-1)
    return [
        [(int(token), _round(value)) for token, value in zip(row_ids, row, strict=True)]
        for row_ids, row in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _round(value: float) -> float:
    return round(value, 5)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _named(("sweeper", "torch", "transformers", "safetensors", "tokenizers", "numpy")):
        found[name] = importlib.metadata.version(name)
    return found


def _named(packages: Iterable[str]) -> list[str]:
    present = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    return [name for name in packages if name in present]
