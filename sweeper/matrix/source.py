"""YAML text to plain data, with the line of every key.

Scalars follow the YAML 1.2 core schema: `no`, `on` and `1:30` are text. Numbers keep their spelling, so the version
`0.10` stays "0.10". Refused with the line: tabs as indentation, duplicate keys, control characters, tags, cycles,
more than MAX_NODES nodes after aliases are unfolded, integers beyond 18 digits, more than one document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from sweeper.matrix.problems import BadMatrix, KeyPath, Problem

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 40
MAX_DIGITS = 18


class YamlInt(int):
    """An integer that remembers how it was written."""

    raw: str


class YamlFloat(float):
    """A number that remembers how it was written."""

    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """`lines` maps a key path such as ("axes", "parallelism", 2) to the line, from 1, of its key or list item."""

    path: str
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, key: KeyPath) -> int | None:
        """The line of the key, or of the nearest key around it that stands in the file."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own protocol)


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(path: str, raw: bytes) -> Document:
    """Raises BadMatrix. A leading zero or underscores make a number text: `012` is not twelve."""
    if len(raw) > MAX_BYTES:
        raise _bad(path, f"{len(raw)} bytes; a matrix has at most {MAX_BYTES}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(path, "not UTF-8 text", raw[: error.start].count(b"\n") + 1) from None
    _refuse_control_characters(path, text)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(path, error, text) from None
    except RecursionError:
        raise _bad(path, f"nested deeper than {MAX_DEPTH} levels") from None
    except yaml.YAMLError as error:
        raise _bad(path, str(error)) from None
    if root is None:
        raise _bad(path, "the file is empty; copy matrices/any-moe.yaml and edit it")
    if not isinstance(root, yaml.MappingNode):
        raise _bad(path, "a matrix is a mapping of keys, such as `engine: vllm`", root.start_mark.line + 1)
    builder = _Builder()
    data = builder.build(root, (), ())
    if builder.problems:
        raise BadMatrix(path, builder.problems)
    return Document(path=path, data=data, lines=builder.lines)


def _bad(path: str, text: str, line: int | None = None) -> BadMatrix:
    return BadMatrix(path, [Problem(text=text, line=line)])


_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _refuse_control_characters(path: str, text: str) -> None:
    found = _CONTROL.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise _bad(path, f"control character U+{ord(found[0]):04X} in the text", line)


def _syntax(path: str, error: yaml.MarkedYAMLError, text: str) -> BadMatrix:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    problem = error.problem or "not YAML"
    source = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    if "\\t" in problem or re.match(r"\s*\t", source):
        return _bad(path, "a tab in the indentation; YAML wants spaces", line)
    if "expected a single document" in problem or "but found another document" in problem:
        return _bad(path, "a second document (`---`); one matrix per file", line)
    if "undefined alias" in problem:
        return _bad(path, f"{problem}; a value that begins with * or & needs quotes", line)
    if "mapping values are not allowed" in problem:
        return _bad(path, "a `: ` inside a value, or a key indented too far; put quotes around the value", line)
    context = f" {error.context}" if error.context else ""
    return _bad(path, f"not YAML: {problem}{context}", line)


@dataclass(slots=True)
class _Builder:
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def build(self, node: yaml.Node, path: KeyPath, above: tuple[int, ...]) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        if self.nodes > MAX_NODES:
            if self.nodes == MAX_NODES + 1:
                self._complain(f"more than {MAX_NODES} values once aliases are unfolded", line)
            return None
        if id(node) in above:
            return self._complain("an alias that contains itself", line)
        if len(above) > MAX_DEPTH:
            return self._complain(f"nested deeper than {MAX_DEPTH} levels", line)
        inside = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            if not self._plain_tag(node, "seq"):
                return None
            items = []
            for index, item in enumerate(node.value):
                self.lines.setdefault((*path, index), item.start_mark.line + 1)
                items.append(self.build(item, (*path, index), inside))
            return items
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, above: tuple[int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        if not self._plain_tag(node, "map"):
            return result
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain("a key must be a plain word", line)
                continue
            key = key_node.value
            if key_node.tag.endswith(":merge"):
                inherited |= self._merge(value_node, path, above)
                continue
            if key in first_line:
                self._complain(f"key '{key}' is given twice, first in line {first_line[key]}", line)
                continue
            first_line[key] = line
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key), above)
        return {**inherited, **result}

    def _merge(self, node: yaml.Node, path: KeyPath, above: tuple[int, ...]) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            value = self.build(part, path, above)
            if not isinstance(value, dict):
                self._complain("`<<` takes an alias of a mapping", part.start_mark.line + 1)
                continue
            merged = {**value, **merged}
        return merged

    def _scalar(self, node: yaml.Node) -> Any:
        line, text = node.start_mark.line + 1, str(node.value)
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int" and len(text) > MAX_DIGITS:
            return self._complain(f"{text[:12]}... has {len(text)} digits; at most {MAX_DIGITS}, or quote it", line)
        if kind == "int":
            whole = YamlInt(text)
            whole.raw = text
            return whole
        if kind == "float":
            return self._number(text, line)
        return self._complain(f"tag {node.tag} is not allowed; write plain values", line)

    def _number(self, text: str, line: int) -> Any:
        number = YamlFloat(text)
        if not math.isfinite(number):
            return self._complain(f"{text} is not a number that fits", line)
        number.raw = text
        return number

    def _plain_tag(self, node: yaml.Node, kind: str) -> bool:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            self._complain(f"tag {node.tag} is not allowed; write plain values", node.start_mark.line + 1)
            return False
        return True

    def _complain(self, text: str, line: int) -> None:
        self.problems.append(Problem(text=text, line=line))
