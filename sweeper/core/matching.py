"""Cells by what they ask for: `moe_backend=cutlass|marlin,tp=2`, also exclude rules and the reference cell.

A term is (key, pattern). A pattern holds alternatives between `|`, each with shell wildcards; what a cell does not set
reads `none`. Case does not count, and `-` and `_` are the same in backend names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from sweeper.core.errors import UsageError
from sweeper.core.identity import cell_id
from sweeper.core.values import Cell

Terms: TypeAlias = tuple[tuple[str, str], ...]

UNSET = "none"
_ALIASES = {"spec": "speculative", "backend": "moe_backend", "quant": "quantization", "version": "engine_version"}
_BACKENDS = ("moe_backend", "linear_backend", "attention_backend")
_TERM = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


def facts(cell: Cell) -> Mapping[str, str]:
    """Everything a term can ask about a cell, as text. `env.NAME` is present for the variables the cell sets."""
    p, spec = cell.parallelism, cell.speculative
    values: dict[str, object] = {
        "id": cell_id(cell),
        "label": cell.label(),
        "name": cell.name,
        "engine": cell.engine,
        "engine_version": cell.engine_version,
        "image": cell.image,
        "python": cell.python,
        "command": " ".join(cell.command) or None,
        "url": cell.url,
        "model": cell.model,
        "quantization": cell.quantization,
        "quantization_flag": cell.quantization_flag,
        "moe_backend": cell.moe_backend,
        "linear_backend": cell.linear_backend,
        "attention_backend": cell.attention_backend,
        "parallelism": p.label(),
        "tp": p.tp,
        "pp": p.pp,
        "dp": p.dp,
        "ep": p.ep,
        "speculative": spec.label() if spec else None,
        "speculative.method": spec.method if spec else None,
        "speculative.tokens": spec.tokens if spec else 0,
        "speculative.model": spec.model if spec else None,
        "speculative.moe_backend": spec.moe_backend if spec else None,
        "mtp": spec.tokens if spec and spec.method == "mtp" else 0,
        "extra_args": " ".join(cell.extra_args) or None,
        "max_model_len": cell.max_model_len,
        "gpu_memory_utilization": cell.gpu_memory_utilization,
        "launcher": cell.launcher,
    }
    values |= {f"env.{name}": value for name, value in cell.env}
    return {key: UNSET if value is None else str(value) for key, value in values.items()}


KEYS: tuple[str, ...] = tuple(facts(Cell(engine="", model="")))


def key_of(written: str) -> str:
    """The full key for a written one: `parallelism.tp` and `tp`, `spec` and `speculative`. UsageError on others."""
    name = written.removeprefix("parallelism.")
    name = _ALIASES.get(name, name)
    if name in KEYS or name.startswith("env."):
        return name
    near = difflib.get_close_matches(name, [*KEYS, *_ALIASES], n=1)
    raise UsageError(
        f"cells have no '{written}'" + (f"; did you mean '{near[0]}'?" if near else ""),
        hint=f"Keys: {', '.join(KEYS)}, env.NAME",
    )


def matches(cell: Cell, terms: Iterable[tuple[str, str]]) -> bool:
    """True when every term holds. No terms: True."""
    known = facts(cell)
    return all(_holds(key, known.get(key, UNSET), pattern) for key, pattern in terms)


def _holds(key: str, value: str, pattern: str) -> bool:
    return any(fnmatchcase(_folded(key, value), _folded(key, part)) for part in pattern.split("|"))


def _folded(key: str, text: str) -> str:
    text = text.strip().lower()
    return text.replace("-", "_") if key.endswith(_BACKENDS) else text


def parse(expression: str) -> tuple[Terms, tuple[str, ...]]:
    """`--only` text as (terms that must all hold, names of which one must match). UsageError on an unknown key."""
    terms: list[tuple[str, str]] = []
    names: list[str] = []
    for piece in filter(None, (part.strip() for part in expression.split(","))):
        found = _TERM.fullmatch(piece)
        if found:
            terms.append((key_of(found[1]), found[2]))
        else:
            names.append(piece)
    return tuple(terms), tuple(names)


def named(cell: Cell, names: Sequence[str]) -> bool:
    """True when a name is the cell's label, a wildcard pattern over it, or the beginning of its id. No names: True."""
    if not names:
        return True
    label, ident = cell.label().lower(), cell_id(cell)
    return any(fnmatchcase(label, name.lower()) or name.lower() == label or ident.startswith(name) for name in names)
