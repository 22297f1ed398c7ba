"""pydantic's errors in our words: what is wrong, what is accepted, the nearest known key."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from sweeper.matrix.fields import nearest
from sweeper.matrix.problems import KeyPath, Problem, written
from sweeper.matrix.source import Document

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def problems(error: ValidationError, model: type[BaseModel], document: Document) -> list[Problem]:
    """One Problem per thing that is wrong, each at its line."""
    found = []
    for one in error.errors(include_url=False):
        path: KeyPath = tuple(one["loc"])
        found.append(Problem(text=_text(one, path, model), line=document.line(path), key=written(path)))
    return found


def _text(one: Any, path: KeyPath, model: type[BaseModel]) -> str:
    kind, given, context = one["type"], one["input"], one.get("ctx", {})
    if kind == "extra_forbidden":
        known = keys_at(model, path[:-1])
        return f"unknown key '{path[-1]}'{nearest(str(path[-1]), known)} Accepted: {', '.join(known)}"
    if kind == "missing":
        return "missing; it has to be given"
    if kind == "literal_error":
        accepted = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{_shown(given)} is not accepted{nearest(str(given), accepted.split(', '))} Accepted: {accepted}"
    if kind in _KINDS:
        return f"needs {_KINDS[kind]}, got {_shown(given)}"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"must be {words} {context[key]:g}, got {_shown(given)}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} does not have the form {context['pattern']}, for example 12.0"
    return str(one["msg"])


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(getattr(value, "raw", value))
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"'{shown}'" if isinstance(value, str) else shown


def keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that are known at a place of the file."""
    current: Any = model
    for part in path:
        current = _below(current, part)
    found = _model_in(current)
    return list(found.model_fields) if found else []


def _below(annotation: Any, part: str | int) -> Any:
    model = _model_in(annotation)
    if isinstance(part, str) and model is not None:
        return model.model_fields[part].rebuild_annotation() if part in model.model_fields else None
    for inner in _unwrapped(annotation):
        origin, args = get_origin(inner), get_args(inner)
        if isinstance(part, int) and origin in (list, tuple):
            return args[0]
        if isinstance(part, str) and origin in (dict, Mapping):
            return args[1]
    return None


def _unwrapped(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for arm in get_args(annotation) for inner in _unwrapped(arm)]
    return [annotation]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for inner in _unwrapped(annotation):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None
