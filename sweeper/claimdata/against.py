"""One server that was measured by hand: a line or file of `sweeper bench --json`, and conditions a person states."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeper.claimdata.figures import canonical_model, readings
from sweeper.claimdata.load import document_of, merged
from sweeper.claimdata.models import ConditionsFile
from sweeper.core import codec
from sweeper.core.claims import NAMES, Conditions, Figure
from sweeper.core.errors import BadFile, RecordUnusable, UsageError
from sweeper.core.points import DecodePoint
from sweeper.matrix.complaints import problems
from sweeper.matrix.problems import BadMatrix

_POINT_FIELDS = frozenset(field.name for field in fields(DecodePoint))
_HINT = "Write it with: sweeper bench URL --json > measured.json"


def figures_of_bench(source: str, conditions: Conditions) -> tuple[Figure, ...]:
    """One figure per line. `source`: a file, `-` for standard input, or the JSON text itself. Raises BadFile."""
    path, text = _text(source)
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            point = _point(path, number, line)
            found.append(_figure(point, conditions))
    if not found:
        raise BadFile(path, "nothing measured in it", hint=_HINT)
    return tuple(found)


def _text(source: str) -> tuple[str, str]:
    if source == "-":
        return "standard input", sys.stdin.read()
    if source.lstrip().startswith("{"):
        return "--against", source
    try:
        return source, Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadFile(source, f"cannot be read: {why}", hint=_HINT) from None


def _point(path: str, number: int, line: str) -> DecodePoint:
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise BadFile(path, f"not JSON: {error}", line=number, hint=_HINT) from None
    if not isinstance(data, dict) or "schema" not in data:
        raise BadFile(path, "not an object of `sweeper bench --json`", line=number, key="schema", hint=_HINT)
    if data["schema"] != 1:
        raise BadFile(
            path, f"schema {data['schema']} is of a newer sweeper; this one reads 1", line=number, key="schema"
        )
    if data.get("tokens_exact") is False and data.get("tokens_source") == "usage":
        data["tokens_source"] = "final_usage"
    # What else `bench` says beyond the point is for other readers.
    data = {key: value for key, value in data.items() if key in _POINT_FIELDS}
    data["errors"], data["invalid"] = tuple(data.get("errors") or ()), tuple(data.get("invalid") or ())
    try:
        return codec.load(DecodePoint, data)
    except RecordUnusable as bad:
        raise BadFile(path, bad.message, line=number, hint=_HINT) from None


def _figure(point: DecodePoint, conditions: Conditions) -> Figure:
    length = point.acceptance.length if point.acceptance else None
    own = replace(
        conditions,
        model=canonical_model(conditions.model),
        concurrency=point.concurrency if point.rate is None else None,
        isl=point.isl if point.isl is not None else conditions.isl,
        osl=point.osl if point.osl is not None else conditions.osl,
        preset=point.preset,
        acceptance_length=length if length is not None else conditions.acceptance_length,
    )
    label = f"measured server, concurrency {point.concurrency}"
    failed = point.against
    measured = {} if failed else readings([point])
    return Figure(label=label, conditions=own, readings=measured, failed=failed, counted=point.tokens_source)


def conditions_of(file: Path | None, pairs: Sequence[str]) -> Conditions:
    """Conditions from a YAML file, then from `key=value` pairs. Raises BadFile, UsageError."""
    conditions = Conditions()
    if file is not None:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise BadFile(str(file), f"cannot be read: {error.strerror}") from None
        conditions = merged(conditions, _checked(str(file), raw))
    for pair in pairs:
        name, sign, _ = pair.partition("=")
        if not sign or name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            raise UsageError(
                f"--set {pair}: " + (f"'{name}' is not a condition" if sign else "write key=value")
                + (f"; did you mean '{near[0]}'?" if near else ""),
                hint=f"Conditions: {', '.join(NAMES)}",
            )  # fmt: skip
    if pairs:
        text = "\n".join(f"{pair.partition('=')[0]}: {pair.partition('=')[2]}" for pair in pairs)
        conditions = merged(conditions, _checked("--set", text.encode()))
    return conditions


def _checked(path: str, raw: bytes) -> Any:
    document = document_of(path, raw)
    try:
        return ConditionsFile.model_validate(document.data)
    except ValidationError as error:
        raise BadMatrix(path, problems(error, ConditionsFile, document), hint="Conditions: docs/claims.md") from None
