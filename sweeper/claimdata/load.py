"""Claims files from disk to values: shipped ones from data/claims, own ones from folders a person names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeper.claimdata.models import ClaimFile, ClaimsFile, ReadingFile, unit_problem
from sweeper.core.claims import Claim, Conditions, Source
from sweeper.core.errors import BadFile, UsageError
from sweeper.matrix.complaints import problems
from sweeper.matrix.problems import BadMatrix, KeyPath, Problem, written
from sweeper.matrix.source import Document, parse

_HINT = "Keys and values: docs/claims.md; check again with: sweeper claims list --claims FOLDER"


def load_claims(extra_dirs: Iterable[Path | str] = ()) -> tuple[Claim, ...]:
    """Shipped claims and those of `extra_dirs`. Raises BadFile with file, line and key, UsageError on a doubled id."""
    claims = [*_shipped()]
    for folder in extra_dirs:
        claims += [claim for file in _files(Path(folder)) for claim in load_file(file)]
    seen: dict[str, Claim] = {}
    for claim in claims:
        if claim.id in seen:
            other = seen[claim.id]
            raise BadFile(
                claim.path, f"id '{claim.id}' is taken: {other.path}:{other.line}", line=claim.line, hint=_HINT
            )
        seen[claim.id] = claim
    for claim in claims:
        if claim.same_as is not None and claim.same_as not in seen:
            near = difflib.get_close_matches(claim.same_as, seen, n=1)
            more = f"; did you mean '{near[0]}'?" if near else ""
            problem = f"no claim has the id '{claim.same_as}'{more}"
            raise BadFile(claim.path, problem, line=claim.line, key="same_as", hint=_HINT)
    return tuple(claims)


@cache
def _shipped() -> tuple[Claim, ...]:
    folder = resources.files("sweeper.data") / "claims"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
    return tuple(claim for name in names for claim in parse_claims(name, (folder / name).read_bytes()))


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise BadFile(str(folder), "no such folder", hint="--claims takes a folder of YAML files, or one file")
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not found:
        raise BadFile(str(folder), "no YAML file in this folder")
    return found


def load_file(file: Path) -> tuple[Claim, ...]:
    """The claims of one file. Raises BadFile."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise BadFile(str(file), f"cannot be read: {error.strerror}") from None
    return parse_claims(str(file), raw)


def parse_claims(path: str, raw: bytes) -> tuple[Claim, ...]:
    """The claims in a file's bytes, readings beside the claims they belong to. Raises BadFile with every problem."""
    document = document_of(path, raw)
    try:
        model = ClaimsFile.model_validate(document.data)
    except ValidationError as error:
        raise BadMatrix(path, problems(error, ClaimsFile, document), hint=_HINT) from None
    build = _Build(document=document, file=model)
    claims = build.claims()
    if build.problems:
        raise BadMatrix(path, build.problems, hint=_HINT)
    return claims


def document_of(path: str, raw: bytes) -> Document:
    """YAML with the line of every key; complaints speak of a claims file."""
    if not raw.strip():
        raise BadFile(path, "the file is empty", hint=_HINT)
    try:
        return parse(path, raw)
    except BadMatrix as bad:
        told = [replace(problem, text=_reworded(problem.text)) for problem in bad.problems]
        raise BadMatrix(path, told, hint=_HINT) from None


def _reworded(text: str) -> str:
    if text.startswith("a matrix is a mapping"):
        return "a claims file is a mapping of keys, such as `table:` and `claims:`"
    return text.replace("a matrix", "a claims file").replace("one matrix per file", "one document per file")


@dataclass(slots=True)
class _Build:
    document: Document
    file: ClaimsFile
    problems: list[Problem] = field(default_factory=list)

    def claims(self) -> tuple[Claim, ...]:
        made = [one for index, written_ in enumerate(self.file.claims) for one in self._claim(index, written_)]
        first: dict[str, int | None] = {}
        for claim in made:
            if claim.id in first:
                self._complain(f"id '{claim.id}' is given twice, first in line {first[claim.id]}", claim.line)
            first.setdefault(claim.id, claim.line)
        return tuple(made)

    def _claim(self, index: int, entry: ClaimFile) -> list[Claim]:
        place: KeyPath = ("claims", index)
        source = entry.source or self.file.source
        kind, unit = entry.kind or self.file.kind, entry.unit or self.file.unit
        if source is None:
            self._complain("no source: give one here or at the top of the file", self.document.line(place), place)
        bad_unit = unit_problem(kind, unit)
        if bad_unit:
            self._complain(bad_unit, self.document.line((*place, "unit")), (*place, "unit"))
        if source is None or bad_unit:
            return []
        conditions = merged(merged(Conditions(), self.file.conditions), entry.conditions)
        stated = {name for name in _names() if getattr(conditions, name) is not None}
        for position, name in enumerate(entry.unknown):
            if name in stated:
                where: KeyPath = (*place, "unknown", position)
                self._complain(
                    f"'{name}' is stated as {getattr(conditions, name)} and unknown", self.document.line(where), where
                )
        base = Claim(
            id=entry.id,
            table=self.file.table,
            low=entry.value[0],
            high=entry.value[1],
            spread=entry.spread,
            kind=kind,
            unit=unit,
            bound=entry.bound,
            promised=entry.promised,
            conditions=conditions,
            unknown=tuple(name for name in dict.fromkeys([*self.file.unknown, *entry.unknown]) if name not in stated),
            source=Source(**source.model_dump()),
            row=entry.row or "",
            note=entry.note or "",
            retracted=entry.retracted,
            same_as=entry.same_as,
            path=self.document.path,
            line=self.document.line(place),
        )
        return [base, *(_reading(base, name, one) for name, one in entry.readings.items())]

    def _complain(self, text: str, line: int | None, key: KeyPath = ()) -> None:
        self.problems.append(Problem(text=text, line=line, key=written(key)))


def _reading(base: Claim, name: str, reading: ReadingFile) -> Claim:
    conditions = merged(base.conditions, reading.conditions)
    return replace(
        base,
        id=f"{base.id}.{name}",
        reading_of=base.id,
        kind=reading.kind or base.kind,
        promised=base.promised if reading.promised is None else reading.promised,
        conditions=conditions,
        unknown=tuple(one for one in base.unknown if getattr(conditions, one) is None),
        note=reading.note or base.note,
    )


def _names() -> tuple[str, ...]:
    return tuple(f.name for f in fields(Conditions))


def merged(below: Conditions, above: Any) -> Conditions:
    """`above` (a ConditionsFile) over `below`; what it leaves out stays, what it sets to null is not stated."""
    given = {name: _plain(value) for name, value in above.model_dump(exclude_unset=True).items()}
    return replace(below, **given)


def _plain(value: Any) -> Any:
    """Numbers without their spelling."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, int) else float(value)


def find(claims: Sequence[Claim], name: str) -> Claim:
    """The claim of that id. UsageError with the nearest ones."""
    for claim in claims:
        if claim.id == name:
            return claim
    ids = [claim.id for claim in claims]
    near = difflib.get_close_matches(name, ids, n=3, cutoff=0.5) or [one for one in ids if name in one][:3]
    raise UsageError(
        f"no claim '{name}'" + (f"; did you mean {', '.join(near)}?" if near else ""),
        hint="All ids: sweeper claims list",
    )


def select(claims: Sequence[Claim], patterns: Sequence[str]) -> tuple[Claim, ...]:
    """Claims whose id matches a shell pattern. No patterns: all. UsageError when nothing is left."""
    if not patterns:
        return tuple(claims)
    chosen = tuple(claim for claim in claims if any(fnmatchcase(claim.id, one) for one in patterns))
    if not chosen:
        raise UsageError(f"no claim matches {', '.join(patterns)}", hint="All ids: sweeper claims list")
    return chosen


def begin_with(claims: Sequence[Claim], text: str) -> tuple[Claim, ...]:
    """Claims whose id begins with `text`, else those whose id holds it. UsageError when there are none."""
    chosen = tuple(claim for claim in claims if claim.id.startswith(text))
    return chosen or select(claims, [f"*{text}*"])
