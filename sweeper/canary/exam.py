"""Accuracy of a speaking checkpoint on questions that its training never contained."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from sweeper.canary import corpus

EXAM_SEED = 2026


def examine(folder: Path, per_skill: int = 50) -> dict[str, Any]:
    """{"accuracy": {skill: share right}, "questions": {skill: n}}; greedy, in float32 from the stored weights."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    right: dict[str, list[bool]] = defaultdict(list)
    for item in corpus.exam(EXAM_SEED, per_skill):
        right[item.skill].append(_greedy(model, encoder, item.prompt, len(encoder.encode(item.answer))) == item.answer)
    return {
        "accuracy": {skill: sum(marks) / len(marks) for skill, marks in right.items()},
        "questions": {skill: len(marks) for skill, marks in right.items()},
    }


def _greedy(model: Any, encoder: Any, prompt: str, tokens: int) -> str:
    import torch

    ids = torch.tensor([encoder.encode(prompt)])
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, eos_token_id=None
        )
    return str(encoder.decode(out[0, ids.shape[1] :]))
