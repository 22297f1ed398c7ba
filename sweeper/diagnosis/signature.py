"""A failure signature: what is read from `signatures/*.yaml`, checked, with the place of every mistake.

One file per cause id, a list of entries in each; several entries carry the same id where wording, engine or version
differ. Entries are independent: an id is found when any of its entries matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from sweeper.core.errors import BadFile
from sweeper.core.verdicts import Phase

EngineName = Literal["vllm", "sglang", "transformers", "llamacpp", "trtllm", "flashinfer", "any"]
Severity = Literal["fatal", "degraded", "note"]
Rank = Literal["root", "consequence", "opaque"]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
MIN_LITERAL = 6
"""Shorter literals hit every other line of a log and cost more than they tell."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Multiline(_Strict):
    """The first line proves nothing alone: every literal must follow within so many lines."""

    next_contains: tuple[str, ...] = Field(min_length=1)
    within: int = Field(default=5, ge=1, le=200)


class Before(_Strict):
    """What stood shortly before the line, in the same process: one of these literals, within so many lines."""

    any_of: tuple[str, ...] = Field(min_length=1)
    within: int = Field(default=2, ge=1, le=100)


class Examples(_Strict):
    """The proofs: raw lines (or excerpts of several lines) that must match, and near misses that must not."""

    match: tuple[str, ...] = Field(min_length=1)
    no_match: tuple[str, ...] = ()


class Signature(_Strict):
    """One wording of one cause.

    `contains` are literals that must all stand on the line; of `any_of` at least one. `regex` is searched in the
    cleaned line and its named groups become evidence. `fatal` is meant for a server that is not yet ready; after
    that only with `fatal_after_ready`, or where the process died of it. `min_count` is the number of distinct lines
    below which the match says nothing. `consequence_of` names causes that explain this one away.
    """

    id: Slug
    engines: tuple[EngineName, ...] = ("any",)
    since: str | None = None
    until: str | None = None
    phases: tuple[Phase, ...] = ()
    severity: Severity
    fatal_after_ready: bool = False
    contains: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    regex: str | None = None
    not_contains: tuple[str, ...] = ()
    before: Before | None = None
    """The line counts only when one of these stood before it."""
    not_before: Before | None = None
    """The line means something else when one of these stood before it."""
    multiline: Multiline | None = None
    min_count: int = Field(default=1, ge=1)
    source_echo: bool = False
    """The proof is itself a line of source code in a traceback (an assertion without a message)."""
    rank: Rank = "root"
    consequence_of: tuple[Slug, ...] = ()
    means: str = Field(min_length=10)
    try_: str = Field(alias="try", min_length=3)
    source: str = Field(min_length=3)
    examples: Examples
    path: str = Field(default="", exclude=True)
    line: int = Field(default=0, exclude=True)

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _selective(self) -> Signature:
        if not self.anchors:
            raise ValueError(f"needs a literal of at least {MIN_LITERAL} characters in contains (or in every any_of)")
        return self

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        return re.compile(self.regex) if self.regex else None

    @cached_property
    def anchors(self) -> tuple[str, ...]:
        """Literals the scanner looks for: the longest of `contains`, or all of `any_of` where those are longer."""
        longest = max(self.contains, key=len, default="")
        shortest = min(map(len, self.any_of), default=0)
        if shortest > len(longest) + 4:
            return self.any_of if shortest >= MIN_LITERAL else ()
        return (longest,) if len(longest) >= MIN_LITERAL else ()


def load_signatures(extra_dirs: Iterable[str | Path] = ()) -> tuple[Signature, ...]:
    """The shipped signatures, then those of `extra_dirs` (every `*.yaml` and `*.yml` in them). Raises BadFile."""
    found: list[Signature] = []
    for entry in sorted(resources.files("sweeper.diagnosis").joinpath("signatures").iterdir(), key=lambda p: p.name):
        if entry.name.endswith((".yaml", ".yml")):
            found += parse_signatures(entry.read_text(encoding="utf-8"), str(entry))
    for folder in map(Path, extra_dirs):
        if not folder.is_dir():
            raise BadFile(str(folder), "no such folder of signatures")
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            found += load_file(path)
    return tuple(found)


def load_file(path: Path) -> list[Signature]:
    """The entries of one file. Raises BadFile."""
    try:
        return parse_signatures(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(str(path), f"cannot be read: {error}") from None


def parse_signatures(text: str, path: str) -> list[Signature]:
    """Entries of a YAML text; every mistake as BadFile with line and key."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise BadFile(path, f"not YAML: {error.problem or error}", line=line) from None
    except yaml.YAMLError as error:
        raise BadFile(path, f"not YAML: {error}") from None
    if not isinstance(root, yaml.SequenceNode):
        raise BadFile(path, "a signature file is a list of entries, each beginning with `- id:`", line=1)
    return [_entry(node, path, index) for index, node in enumerate(root.value)]


_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _entry(node: yaml.Node, path: str, index: int) -> Signature:
    line = node.start_mark.line + 1
    raw = _plain(node)
    if not isinstance(raw, dict):
        raise BadFile(path, "an entry is a mapping", line=line, key=f"[{index}]")
    try:
        return Signature.model_validate({**raw, "path": path, "line": line})
    except ValidationError as error:
        first = error.errors()[0]
        where, key = _locate(node, first["loc"])
        problem = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            problem = "no such key"
        raise BadFile(path, problem, line=where, key=f"[{index}]{key}") from None


def _plain(node: yaml.Node) -> object:
    """A node as plain values, by YAML's own rules (numbers, booleans), without building the text again."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _locate(node: yaml.Node, loc: tuple[str | int, ...]) -> tuple[int, str]:
    """Line (from 1) and key path of a pydantic location; the deepest part that exists in the file."""
    line, key = node.start_mark.line + 1, ""
    for part in loc:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
        child = None
        if isinstance(node, yaml.MappingNode):
            child = next((value for name, value in node.value if name.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
        if child is None:
            break
        node, line = child, child.start_mark.line + 1
    return line, key
