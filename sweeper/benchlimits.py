"""A server measured by hand held against the speed of light: of which model, on which GPU, a person says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeper.boards import board, names
from sweeper.checkpoint import model_geometry
from sweeper.core.errors import UsageError
from sweeper.core.points import DecodePoint
from sweeper.core.roofline import Board, Reached, held_against, reached
from sweeper.core.values import Cell, Parallelism, Speculative
from sweeper.insights import limit_of

DEGREES = ("tp", "pp", "dp", "ep")
KEYS = ("model", "gpu", "quantization", *DEGREES)
EXAMPLE = "Example: --limit model=Qwen/Qwen3-30B-A3B,gpu=H200,tp=2"
MANY = 1.05
"""Tokens an event from which a server speculates, whether or not it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the server runs, as far as its limit depends on it."""

    cell: Cell
    board: Board


def served(text: str) -> Served:
    """From `model=M,gpu=G,tp=2`. UsageError for what is not known: without geometry and bandwidth there is no limit."""
    pairs = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in text.split(",") if part)}
    wrong = [key for key in pairs if key not in KEYS or not pairs[key]]
    if wrong or not {"model", "gpu"} <= set(pairs):
        named = f"'{wrong[0]}' is none of {', '.join(KEYS)}" if wrong else "model and gpu are needed"
        raise UsageError(f"--limit {text}: {named}", hint=EXAMPLE)
    if model_geometry(pairs["model"]) is None:
        raise UsageError(f"the shape of '{pairs['model']}' is not known", hint="Name a folder with its config.json.")
    here = board(pairs["gpu"])
    if here is None:
        raise UsageError(f"no constants for the GPU '{pairs['gpu']}'", hint="Known: " + ", ".join(names()))
    degrees = {key: pairs.get(key, "1") for key in DEGREES}
    if bad := [key for key, value in degrees.items() if not value.isdigit() or value == "0"]:
        raise UsageError(f"--limit {bad[0]}={degrees[bad[0]]} is not a whole number from 1", hint=EXAMPLE)
    layout = Parallelism(**{key: int(value) for key, value in degrees.items()})
    cell = Cell(engine="command", model=pairs["model"], quantization=pairs.get("quantization"), parallelism=layout)
    return Served(cell=cell, board=here)


def held(points: Sequence[DecodePoint], what: Served) -> tuple[list[DecodePoint], list[Reached | None]]:
    """Points with their shares of the limit. What no bandwidth allows is a cause against a point, not a record."""
    both = [_held(point, what) for point in points]
    return [point for point, _ in both], [found for _, found in both]


def _held(point: DecodePoint, what: Served) -> tuple[DecodePoint, Reached | None]:
    cell = _drafting(point, what.cell)
    limit = limit_of(cell, point, what.board) if cell else None
    if limit is None or point.decode_tok_s is None:
        return point, None
    found = held_against(point.decode_tok_s, limit)[1]
    against = tuple(one.text for one in found if one.id == "above-speed-of-light")
    return replace(point, invalid=(*point.invalid, *against)), reached(point.decode_tok_s, limit)


def _drafting(point: DecodePoint, cell: Cell) -> Cell | None:
    """With the drafts that were counted; None where several tokens come at once and nobody counted drafts."""
    accepted, steps, rate = point.acceptance, point.steps_s, point.decode_tok_s_per_stream
    if accepted is not None and accepted.drafts and accepted.draft_tokens:
        drafts = max(1, round(accepted.draft_tokens / accepted.drafts))
        return replace(cell, speculative=Speculative(method="mtp", tokens=drafts))
    return None if steps and rate is not None and rate > MANY * steps else cell


def lines(points: Sequence[DecodePoint], limits: Sequence[Reached | None]) -> list[str]:
    """What stands below a table."""
    return [
        f"Limit at {point.concurrency}, ISL {point.isl or '-'}: {found.text() if found else 'not known'}"
        for point, found in zip(points, limits, strict=True)
    ]
