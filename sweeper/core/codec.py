"""Values to JSON and back, for the frozen dataclasses of this package.

pydantic does the work; an unknown key in old or new records is ignored, a missing one takes its default, so a record
written by another version stays readable.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from sweeper.core.errors import RecordUnusable

T = TypeVar("T")


def _adapter(cls: Any) -> TypeAdapter[Any]:
    return _cached(cls)


@cache
def _cached(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def dump(value: object) -> dict[str, Any]:
    """A dataclass as JSON-ready data: tuples become lists, enums their value."""
    return cast("dict[str, Any]", _adapter(type(value)).dump_python(value, mode="json"))


def load(cls: type[T], data: object) -> T:
    """The inverse of `dump`. Raises RecordUnusable naming the field that does not fit."""
    try:
        return cast("T", _adapter(cls).validate_python(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordUnusable(f"record of type {cls.__name__}: {where}: {first['msg']}") from None
