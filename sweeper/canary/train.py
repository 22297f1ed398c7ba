"""Train the speaking canary: `python -m sweeper.canary.train --out DIR`. Minutes on two CPU cores.

A Qwen3-MoE of 4.5 million parameters (hidden 256, 4 layers, 8 experts, top-2, 4 heads, 2 KV heads): divisible for
TP=2, PP=2 and EP=2, its sizes multiples of the 64 and 128 that quantised kernels ask for. Text: `corpus.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.canary import corpus, cut, exam, tokenizer

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
WARM_UP, DECAY_SHARE, LONG_SHARE = 100, 0.3, 0.12
PROMPT_LENGTHS = (96, 512)
Row = tuple[list[int], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of training with its own text and learning rate; each starts from the bf16 file of the one before.

    `from_start`: every row begins with a document, as prompts do. Cut anywhere, rows hardly ever do, and a model that
    always had text before the document adds rightly after another document and wrongly at position 0.
    """

    steps: int
    peak_rate: float
    text: Callable[[int], Iterator[corpus.Segments]]
    from_start: bool = False


STAGES = (
    Stage(steps=2600, peak_rate=2e-3, text=lambda seed: ([(text, 1.0)] for text in corpus.documents(seed))),
    Stage(steps=1000, peak_rate=1.5e-3, text=corpus.weighted_documents),
    Stage(steps=200, peak_rate=6e-4, text=corpus.weighted_documents, from_start=True),
)


def windows(
    documents: Iterator[corpus.Segments], encoder: Any, length: int, *, from_start: bool = False
) -> Iterator[Row]:
    """Documents joined by the end-of-text token, cut into rows of `length` + 1 (ids, loss weights).

    `from_start`: what is left of a document at the end of a row is dropped.
    """
    ids: list[int] = []
    weights: list[float] = []
    for document in documents:
        for text, weight in [*document, (corpus.EOT, 1.0)]:
            piece = encoder.encode(text).ids
            ids += piece
            weights += [weight] * len(piece)
        while len(ids) > length:
            yield ids[: length + 1], weights[: length + 1]
            ids, weights = ([], []) if from_start else (ids[length:], weights[length:])


def rate(step: int, stage: Stage) -> float:
    """Learning rate: linear warm-up, flat, then a linear fall to zero over the last `DECAY_SHARE`."""
    fall = (stage.steps - step) / (DECAY_SHARE * stage.steps)
    return stage.peak_rate * min(1.0, (step + 1) / min(WARM_UP, stage.steps // 10), fall)


def train(model: Any, stage: Stage, seed: int, tokens: int = 2048) -> None:
    """Train in place, float32, `tokens` a step."""
    import torch

    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(_groups(model), lr=stage.peak_rate, betas=(0.9, 0.98), fused=True)
    encoder, started, average = tokenizer.build(CONFIG["vocab_size"]), time.monotonic(), 0.0
    short, long = PROMPT_LENGTHS if stage.from_start else (512, 1024)
    sources = {
        length: windows(stage.text(seed + number), encoder, length, from_start=stage.from_start)
        for number, length in enumerate((short, long))
    }
    for step in range(stage.steps):
        length = long if _is_long(step, stage) else short
        rows = [next(sources[length]) for _ in range(tokens // length)]
        for group in optimizer.param_groups:
            group["lr"] = rate(step, stage)
        loss = _loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average += (loss.item() - average) * max(0.02, 1 / (step + 1))
        if step % 50 == 49:
            print(f"step {step + 1} loss {average:.3f} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _is_long(step: int, stage: Stage) -> bool:
    """Every third step of a stage of prompts; else the last `LONG_SHARE` of the steps."""
    return step % 3 == 2 if stage.from_start else step >= stage.steps * (1 - LONG_SHARE)


def _loss(model: Any, rows: list[Row]) -> Any:
    import torch

    ids, weights = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])[:, 1:].flatten()
    output = model(input_ids=ids[:, :-1], output_router_logits=True)
    each = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (each * weights).sum() / weights.sum() + CONFIG["router_aux_loss_coef"] * output.aux_loss


def _groups(model: Any) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


def start(seed: int, folder: Path | None) -> Any:
    """A new model, or the one in `folder`, in float32."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    if folder is not None:
        return Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(seed)
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**CONFIG))


def save(model: Any, folder: Path) -> None:
    """bf16 safetensors, config, tokenizer, generation config."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.config.output_router_logits = False
    model.to(torch.bfloat16).save_pretrained(folder)
    path = folder / "config.json"
    config = cut.portable(json.loads(path.read_text("utf-8")))
    path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    (folder / "model.safetensors").chmod(0o644)
    generation = {"eos_token_id": [0, 3], "pad_token_id": 0, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n", "utf-8")
    tokenizer.save(folder, CONFIG["vocab_size"], CONFIG["max_position_embeddings"])


def main() -> int:
    """Train, save, examine the saved bf16 checkpoint, print the accuracy per skill as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="stage N is saved in OUT/stageN")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", default="1,2,3", help="which to run; 2 alone starts from OUT/stage1")
    args = parser.parse_args()
    started = time.monotonic()
    for number in map(int, args.stages.split(",")):
        model = start(args.seed, args.out / f"stage{number - 1}" if number > 1 else None)
        train(model, STAGES[number - 1], args.seed + 10 * (number - 1))
        save(model.eval(), args.out / f"stage{number}")
        figures = exam.examine(args.out / f"stage{number}")
        print(json.dumps({"stage": number, "seconds": round(time.monotonic() - started), **figures}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
