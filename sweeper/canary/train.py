"""Train the speaking canary: `python -m sweeper.canary.train --out DIR`. Minutes on two CPU cores.

A Qwen3-MoE of 4.5 million parameters (hidden 256, 4 layers, 8 experts, top-2, 4 heads, 2 KV heads): divisible for
TP=2, PP=2 and EP=2, its sizes multiples of the 64 and 128 that quantised kernels ask for. Text: `corpus.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.canary import corpus, exam, tokenizer

CONFIG: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "router_aux_loss_coef": 0.01,
}
PEAK_RATE, WARM_UP, DECAY_SHARE, LONG_SHARE = 2e-3, 100, 0.3, 0.12


def windows(seed: int, encoder: Any, length: int) -> Iterator[list[int]]:
    """Documents joined by the end-of-text token, cut into rows of `length` + 1 ids."""
    row: list[int] = []
    for document in corpus.documents(seed):
        row += [*encoder.encode(document).ids, 0]
        while len(row) > length:
            yield row[: length + 1]
            row = row[length:]


def rate(step: int, steps: int) -> float:
    """Learning rate: linear warm-up, flat, then a linear fall to zero over the last `DECAY_SHARE`."""
    fall = (steps - step) / (DECAY_SHARE * steps)
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP, fall)


def train(seed: int, steps: int, tokens: int = 2048) -> Any:
    """The trained transformers model, float32. The last `LONG_SHARE` of steps use rows of 1024 tokens, the rest 512."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(seed)
    config = Qwen3MoeConfig(**CONFIG, output_router_logits=True)
    model = Qwen3MoeForCausalLM(config)
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
    encoder, started, average = tokenizer.build(CONFIG["vocab_size"]), time.monotonic(), math.log(CONFIG["vocab_size"])
    short, long = windows(seed, encoder, 512), windows(seed + 1, encoder, 1024)
    for step in range(steps):
        source, length = (long, 1024) if step >= steps * (1 - LONG_SHARE) else (short, 512)
        rows = torch.tensor([next(source) for _ in range(tokens // length)])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        output = model(input_ids=rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), rows[:, 1:].flatten())
        (loss + config.router_aux_loss_coef * output.aux_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average = 0.98 * average + 0.02 * loss.item()
        if step % 50 == 49:
            print(f"step {step + 1} loss {average:.3f} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return model.eval()


def _groups(model: Any) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


def save(model: Any, folder: Path) -> None:
    """bf16 safetensors, config, tokenizer, generation config."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.config.output_router_logits = False
    model.to(torch.bfloat16).save_pretrained(folder)
    generation = {"eos_token_id": [0, 3], "pad_token_id": 0, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n", "utf-8")
    tokenizer.save(folder, CONFIG["vocab_size"], CONFIG["max_position_embeddings"])


def main() -> int:
    """Train, save, examine the saved bf16 checkpoint, print the accuracy per skill as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2600)
    args = parser.parse_args()
    started = time.monotonic()
    save(train(args.seed, args.steps), args.out)
    figures = exam.examine(args.out)
    print(json.dumps({"seed": args.seed, "steps": args.steps, "seconds": round(time.monotonic() - started), **figures}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
