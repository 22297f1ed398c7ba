"""`--gpus`, read in one way by every command that has it."""

from __future__ import annotations

import argparse


def add_gpus(parser: argparse.ArgumentParser, what: str) -> None:
    """`args.gpus` becomes a tuple of ids; None where the option is not given: all of them."""
    told = f"{what}: indices, UUIDs or MIG ids, with commas (default: all)"
    parser.add_argument("--gpus", type=gpu_ids, metavar="IDS", help=told)


def gpu_ids(text: str) -> tuple[str, ...]:
    """`0, GPU-8f..` -> ("0", "GPU-8f.."). An empty list is refused: it would silently mean all of them."""
    ids = tuple(part.strip() for part in text.split(","))
    if not all(ids):
        raise argparse.ArgumentTypeError(f"'{text}' names no GPU in one place; write --gpus 0,1 (ids: nvidia-smi -L)")
    if len(set(ids)) < len(ids):
        raise argparse.ArgumentTypeError(f"'{text}' names a GPU twice")
    return ids
