"""One accuracy result as a file: totals, and a score per question where the source has them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sweeper.core.accuracy import Difference, compare_paired, compare_totals, relative_score, wilson
from sweeper.core.errors import BadFile, UsageError

LARGEST_NLL = 700.0
"""exp of more is no float64."""


class Item(BaseModel):
    """One question. `score` in 0..1; `said` is what was extracted from the answer, `why` the reason for a miss."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    score: float = Field(ge=0, le=1)
    said: str | None = None
    why: str | None = None


class AccuracyResult(BaseModel):
    """`right`: sum of scores over `n` questions. `nll` in nats per token for perplexity presets, else None."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal[1] = Field(default=1, alias="schema")
    preset: str
    model: str
    source: str
    n: int = Field(ge=0)
    right: float = Field(ge=0, allow_inf_nan=False)
    items: list[Item] = Field(default_factory=list)
    nll: float | None = Field(default=None, allow_inf_nan=False)
    tokens: int | None = None
    note: str | None = None
    """What a reader of the figure must know."""

    @model_validator(mode="after")
    def _no_more_right_than_asked(self) -> Self:
        if self.right > self.n:
            raise ValueError(f"{self.right:g} right of {self.n}")
        return self

    @property
    def perplexity(self) -> float | None:
        return None if self.nll is None else math.exp(min(self.nll, LARGEST_NLL))

    def to_json(self) -> dict[str, Any]:
        """The stored object, with the Wilson interval beside it."""
        interval = wilson(self.right, self.n)
        bounds = {"share": interval.share, "low": interval.low, "high": interval.high} if interval else None
        return {**self.model_dump(by_alias=True, mode="json"), "interval": bounds, "perplexity": self.perplexity}


def of_items(preset: str, model: str, source: str, items: list[Item]) -> AccuracyResult:
    """Totals from items."""
    return AccuracyResult(
        preset=preset, model=model, source=source, n=len(items), right=sum(item.score for item in items), items=items
    )


def of_json(path: Path, content: dict[str, Any]) -> AccuracyResult:
    """What `sweeper accuracy --json` wrote; `path` is for the message. Raises BadFile."""
    kept = {key: value for key, value in content.items() if key not in ("interval", "perplexity", "against")}
    try:
        return AccuracyResult.model_validate(kept)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadFile(str(path), first["msg"], key=place or None) from None


def difference(reference: AccuracyResult, candidate: AccuracyResult) -> Difference | None:
    """Paired where both sides know their questions, from totals otherwise. None for perplexities.

    Raises UsageError when the two are not of one preset.
    """
    if reference.preset != candidate.preset:
        raise UsageError(f"{reference.preset} and {candidate.preset} are different question sets")
    if reference.items and candidate.items:
        return compare_paired(
            {item.id: item.score for item in reference.items}, {item.id: item.score for item in candidate.items}
        )
    return compare_totals(reference.right, reference.n, candidate.right, candidate.n)


def score_against(reference: AccuracyResult, candidate: AccuracyResult) -> float | None:
    """Relative perplexity score, reference = 100; None where one side has no perplexity."""
    if reference.perplexity is None or candidate.perplexity is None:
        return None
    return relative_score(candidate.perplexity, reference.perplexity)


def read_any(path: Path) -> AccuracyResult:
    """A result of ours, or a file of another harness that holds exactly one. Raises BadFile."""
    from sweeper.accuracy.importers import import_file

    found = import_file(path)
    if len(found) != 1:
        raise BadFile(str(path), f"holds {len(found)} results: {', '.join(item.preset for item in found)}",
                      hint="Split it with sweeper accuracy import --json")  # fmt: skip
    return found[0]
