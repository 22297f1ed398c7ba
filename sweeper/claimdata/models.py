"""A claims file as typed models: what a person may write. Conditions at the top hold for every claim below."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from sweeper.core.claims import NAMES, UNITS, Bound, Kind
from sweeper.matrix.fields import Text, complaint, nearest
from sweeper.matrix.models import Strict

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Degree = Annotated[int, Field(ge=1, le=4096)]

_TYPES: dict[str, Any] = {
    "gpus": Degree, "mig": bool, "tp": Degree, "pp": Degree, "dp": Degree, "ep": Degree,
    "draft_tokens": Annotated[int, Field(ge=0, le=64)], "acceptance_length": Annotated[float, Field(ge=1, le=65)],
    "concurrency": Count, "isl": Count, "osl": Count, "context": Count, "p2p": bool, "thinking": bool,
    "power_limit_w": Annotated[float, Field(gt=0)], "os": Literal["linux", "wsl2", "macos"],
    "speculative": Literal["none", "mtp", "nextn", "eagle", "eagle3", "ngram", "suffix", "draft_model", "dflash"],
}  # fmt: skip

ConditionsFile = create_model(  # type: ignore[call-overload]
    "ConditionsFile",
    __base__=Strict,
    __doc__="Conditions of a figure; what is not stated is left out.",
    **{name: (_TYPES.get(name, Text) | None, None) for name in NAMES},
)


class SourceFile(Strict):
    """Where the figure was published."""

    title: Text
    where: Text = Field(description="Thread, repository and file, issue, page.")
    date: Text | None = Field(default=None, description="As known: 2026-03-12, 2026-03 or 2026.")
    who: Text | None = None
    via: Text | None = Field(default=None, description="Where it was read when the original could not be.")


def _range(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        raise complaint("a number, or [lowest, highest], is wanted")
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise complaint("a range has two numbers: [lowest, highest]")
    if ends[0] > ends[1]:
        raise complaint(f"the range goes from {ends[0]:g} down to {ends[1]:g}; lowest first")
    return [float(end) for end in ends]


Range = Annotated[list[float], BeforeValidator(_range)]


def _condition(name: str) -> str:
    if name not in NAMES:
        raise complaint(f"'{name}' is not a condition{nearest(name, NAMES)} Accepted: {', '.join(NAMES)}")
    return name


def _slug(text: str) -> str:
    if not text.replace("-", "").replace(".", "").isalnum() or text != text.lower():
        raise complaint(f"'{text}' is not an id: lower-case letters, digits, dots and hyphens")
    return text


Slug = Annotated[Text, AfterValidator(_slug)]
UnknownNames = list[Annotated[Text, AfterValidator(_condition)]]


class ReadingFile(Strict):
    """One way in which an unclear claim can be read: conditions, or a kind, that settle what is unknown."""

    conditions: ConditionsFile = Field(default_factory=ConditionsFile)  # type: ignore[valid-type]
    kind: Kind | None = None
    promised: bool | None = None
    note: Text | None = None


class ClaimFile(Strict):
    """One figure."""

    id: Slug
    value: Range
    spread: Annotated[float, Field(ge=0)] | None = Field(default=None, description="One standard deviation.")
    kind: Kind | None = None
    unit: Text | None = None
    bound: Bound = "exact"
    promised: bool = Field(default=False, description="Said to be what one gets, rather than measured.")
    conditions: ConditionsFile = Field(default_factory=ConditionsFile)  # type: ignore[valid-type]
    unknown: UnknownNames = Field(default_factory=list)
    readings: dict[Slug, ReadingFile] = Field(default_factory=dict)
    source: SourceFile | None = None
    row: Text | None = None
    note: Text | None = None
    retracted: Text | None = None
    same_as: Slug | None = Field(default=None, description="Id of the claim that this one retells.")


class ClaimsFile(Strict):
    """Claims of one publication. `kind`, `unit`, `source`, `conditions`, `unknown` here are every claim's default."""

    table: Text = Field(description="The published table or list these are the figures of.")
    source: SourceFile | None = None
    kind: Kind = "output"
    unit: Text = "tok/s"
    conditions: ConditionsFile = Field(default_factory=ConditionsFile)  # type: ignore[valid-type]
    unknown: UnknownNames = Field(default_factory=list)
    claims: Annotated[list[ClaimFile], Field(min_length=1)]


def unit_problem(kind: str, unit: str) -> str | None:
    """What is wrong with a unit for a kind; None when it fits."""
    if unit in UNITS[kind]:
        return None
    return f"'{unit}' is not a unit of {kind}{nearest(unit, UNITS[kind])} Accepted: {', '.join(UNITS[kind])}"
