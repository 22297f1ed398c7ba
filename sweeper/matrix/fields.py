"""Field types of the matrix file: what a person may write, and what it becomes.

`${NAME}` and `${NAME:-default}` in paths are taken from the mapping handed over as validation context "environ".
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from sweeper.matrix.source import YamlFloat, YamlInt

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")


def complaint(text: str) -> PydanticCustomError:
    """An error whose text is shown as it is."""
    return PydanticCustomError("sweeper", "{text}", {"text": text})


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or a full stop."""
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f"; did you mean '{near[0]}'?" if near else "."


def text(value: Any) -> Any:
    """Text as written; numbers keep their spelling, so a version `0.10` stays "0.10"."""
    if isinstance(value, YamlInt | YamlFloat):
        return value.raw
    if isinstance(value, bool):
        raise complaint(f"text is wanted; put quotes around {str(value).lower()}")
    return value


def expanded(value: Any, info: ValidationInfo) -> Any:
    """Text with its `${NAME}` filled in."""
    value = text(value)
    if not isinstance(value, str):
        return value
    environ: Mapping[str, str] = (info.context or {}).get("environ", {})

    def one(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        given = environ.get(name) or default
        if given is None:
            raise complaint(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return given

    return _VARIABLE.sub(one, value)


def as_list(value: Any) -> Any:
    """One value stands for a list of one."""
    return value if isinstance(value, list) or value is None else [value]


def nothing(value: Any) -> Any:
    """The word `none` is null."""
    return None if isinstance(value, str) and value.lower() == "none" else value


def variables(value: Any) -> Any:
    """Environment variables as text. A boolean is refused: `true` and `True` are different texts to a program."""
    if not isinstance(value, dict):
        return value
    for name in value:
        if not name or re.search(r"[=\s]", name):
            raise complaint(f"'{name}' is no name of a variable")
    return {name: text(one) for name, one in value.items()}


def address(value: str) -> str:
    """Where a server that is already up listens."""
    if not re.fullmatch(r"https?://[^\s/:]+(:\d{1,5})?(/\S*)?|https?://\[[0-9A-Fa-f:.]+\](:\d{1,5})?(/\S*)?", value):
        raise complaint(f"'{value}' is no address of a server; write it as http://127.0.0.1:8000")
    return value


def image(value: str) -> str:
    """A reference that Docker may know; whether it does, Docker says."""
    if re.search(r"\s", value):
        raise complaint(f"'{value}' is no image: a reference has no spaces")
    return value


def json_texts(value: Any) -> Any:
    """Engine-specific keys; values become JSON text."""
    if not isinstance(value, dict):
        return value
    return {name: one if isinstance(one, str) else json.dumps(_plain(one)) for name, one in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, YamlInt):
        return int(value)
    if isinstance(value, YamlFloat):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def pattern(value: Any) -> Any:
    """A matcher: one value or a list of alternatives, wildcards allowed; null matches what a cell does not set."""
    if isinstance(value, list):
        parts = [pattern(one) for one in value]
        return "|".join(one for one in parts if isinstance(one, str)) if parts else value
    if isinstance(value, bool):
        raise complaint(f"put quotes around {str(value).lower()}")
    return "none" if value is None else text(value)


_TEXTUAL = str | int | float

Text = Annotated[str, BeforeValidator(text, json_schema_input_type=_TEXTUAL), Field(min_length=1)]
"""Text; a bare number is taken as it is spelled."""

PathText = Annotated[str, BeforeValidator(expanded, json_schema_input_type=str), Field(min_length=1)]
"""Text in which `${NAME:-default}` is filled in."""

AddressText = Annotated[PathText, AfterValidator(address)]
ImageText = Annotated[PathText, AfterValidator(image)]

Arguments = Annotated[list[Text], Field()]
Command = Annotated[list[PathText], Field(min_length=1)]

Variables = Annotated[
    dict[str, str | None],
    BeforeValidator(variables, json_schema_input_type=dict[str, _TEXTUAL | None]),
]

JsonTexts = Annotated[dict[str, str], BeforeValidator(json_texts, json_schema_input_type=dict[str, Any])]

Pattern = Annotated[str, BeforeValidator(pattern, json_schema_input_type=_TEXTUAL | list[_TEXTUAL | None] | None)]

Degree = Annotated[int, Field(ge=1, le=4096)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Concurrency = Annotated[
    list[Annotated[int, Field(ge=1, le=65536)]],
    BeforeValidator(as_list, json_schema_input_type=int | list[int]),
    Field(min_length=1),
]
