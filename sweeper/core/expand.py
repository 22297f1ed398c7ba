"""Axes to cells, cells to run order, cells and rules to an expansion.

Run order: cells that share engine, image, environment and model stay together, so the image and page cache stay warm;
inside such a block the first axis written changes slowest. With a seed, blocks and the cells inside them are put
in an order that depends on nothing but the seed and the cells.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, TypeAlias

from sweeper.core.errors import UsageError
from sweeper.core.feasibility import check_cell
from sweeper.core.geometry import Geometry
from sweeper.core.identity import cell_id
from sweeper.core.matching import UNSET, facts, matches, named, parse
from sweeper.core.values import Cell, Excluded, Expansion, Hardware, Matrix, PlannedCell

Point: TypeAlias = Mapping[str, Any]
"""Some fields of a cell: one value of an axis, or one row of linked axes."""

GeometryLookup: TypeAlias = Callable[[str], Geometry | None]


def overlay(below: Point, above: Point) -> dict[str, Any]:
    """`above` over `below`: environments are united, extra arguments appended, everything else replaced.

    An environment variable that is None above is taken away.
    """
    result = {**below, **above}
    if "env" in below and "env" in above:
        env = {**dict(below["env"]), **dict(above["env"])}
        result["env"] = tuple(sorted(env.items()))
    if "extra_args" in below and "extra_args" in above:
        result["extra_args"] = (*below["extra_args"], *above["extra_args"])
    return result


def product(fixed: Point, axes: Sequence[Sequence[Point]]) -> Iterator[dict[str, Any]]:
    """Every combination of one point per axis over the fixed fields; the first axis changes slowest."""
    for points in itertools.product(*axes):
        combined = dict(fixed)
        for point in points:
            combined = overlay(combined, point)
        yield combined


def cell_of(fields: Point) -> Cell:
    """A cell from fields that are validated already. Variables that were taken away are dropped, the rest sorted."""
    env = tuple(sorted((name, value) for name, value in fields.get("env", ()) if value is not None))
    return Cell(**{**fields, "env": env})


def merged(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Equal cells once, where the first of them stood. A name given to any of them is kept."""
    kept: dict[str, Cell] = {}
    for cell in cells:
        ident = cell_id(cell)
        first = kept.setdefault(ident, cell)
        if first.name is None and cell.name is not None:
            kept[ident] = replace(first, name=cell.name)
    return tuple(kept.values())


def run_order(cells: Sequence[Cell], seed: int | None = None) -> tuple[Cell, ...]:
    """Blocks of one engine and model together; see the head of this module."""
    engines = list(dict.fromkeys(_engine_block(cell) for cell in cells))
    models = list(dict.fromkeys(_model_block(cell) for cell in cells))
    if seed is None:
        return tuple(sorted(cells, key=lambda c: (engines.index(_engine_block(c)), models.index(_model_block(c)))))
    return tuple(
        sorted(
            cells, key=lambda c: tuple(_dice(seed, key) for key in (_engine_block(c), _model_block(c), (cell_id(c),)))
        )
    )


def _engine_block(cell: Cell) -> tuple[str | None, ...]:
    return (cell.engine, cell.engine_version, cell.image, cell.python, cell.url)


def _model_block(cell: Cell) -> tuple[str | None, ...]:
    return (cell.model, cell.quantization_flag)


def _dice(seed: int, key: tuple[str | None, ...]) -> str:
    return hashlib.sha256(repr((seed, key)).encode()).hexdigest()


_TOLD_ALREADY = frozenset({"id", "label", "name", "command", "mtp", "parallelism", "launcher"})


def distinct_labels(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The same cells, no two with the same label: what tells them apart is added to the name."""
    by_label: dict[str, list[Cell]] = {}
    for cell in cells:
        by_label.setdefault(cell.label(), []).append(cell)
    names: dict[str, str] = {}
    for label, same in by_label.items():
        if len(same) > 1:
            names |= _told_apart(label, same)
    return tuple(
        replace(cell, name=names[ident]) if (ident := cell_id(cell)) in names and names[ident] != cell.label() else cell
        for cell in cells
    )


def _told_apart(label: str, same: Sequence[Cell]) -> dict[str, str]:
    known = [facts(cell) for cell in same]
    keys = sorted(set().union(*known) - _TOLD_ALREADY, key=lambda key: (key.startswith("env."), key))
    varying = [key for key in keys if len({one.get(key, UNSET) for one in known}) > 1]
    shared_args = set.intersection(*(set(cell.extra_args) for cell in same))
    names = {}
    for cell, one in zip(same, known, strict=True):
        parts = [_short(key, one.get(key, UNSET), cell, shared_args) for key in varying]
        names[cell_id(cell)] = " ".join([label, *dict.fromkeys(filter(None, parts))])
    if len(set(names.values())) < len(names):
        return {ident: f"{name} #{ident[:4]}" for ident, name in names.items()}
    return names


def _short(key: str, value: str, cell: Cell, shared_args: set[str]) -> str:
    if value == UNSET:
        return ""
    if key == "extra_args":
        return " ".join(arg for arg in cell.extra_args if arg not in shared_args)
    if key.startswith("env."):
        return f"{key.removeprefix('env.')}={value}"
    if key == "python":
        parts = PurePath(value).parts
        return parts[-3] if len(parts) >= 3 else value
    if key in ("model", "image"):
        return PurePath(value.rstrip("/")).name
    if key in ("linear_backend", "attention_backend", "max_model_len", "gpu_memory_utilization"):
        return f"{key.split('_')[0]}={value}"
    return value


def started_by(matrix: Matrix, launcher: str | None, image: str | None = None) -> Matrix:
    """The matrix as `--launcher` and `--image` bend it. A cell that names a launcher or a URL keeps it.

    Cells that differed only in their image become one. Raises UsageError for a launcher that a cell cannot use.
    """
    if launcher is None and image is None:
        return matrix

    def bent(cell: Cell) -> Cell:
        kind = cell.launcher or ("attach" if cell.url else launcher)
        boxed = kind in (None, "docker")
        return replace(
            cell, launcher=cell.launcher if cell.url else kind, image=image if image and boxed else cell.image
        )

    cells = merged(bent(cell) for cell in matrix.cells)
    for cell in cells:
        if cell.launcher == launcher == "docker" and cell.image is None:
            raise UsageError(
                f"--launcher docker needs an image for every cell; {cell.label()} has none",
                hint="Add `image:` to the matrix, or pass --image NAME.",
            )
        if cell.launcher == launcher == "attach":
            raise UsageError(
                f"--launcher attach needs the address of a server for every cell; {cell.label()} has none",
                hint="Add `url: http://127.0.0.1:8000` to the matrix.",
            )
    excluded = tuple((bent(cell), why) for cell, why in matrix.author_excluded)
    return replace(matrix, cells=cells, author_excluded=excluded)


def no_geometry(model: str) -> None:
    """A lookup that knows no model: rules that need a geometry stay silent."""


def expand(
    matrix: Matrix, hardware: Hardware | None = None, geometry_lookup: GeometryLookup = no_geometry
) -> Expansion:
    """The cells that will run, in order, and those that will not, each with its reasons.

    `hardware` None: the machine named in the matrix. `geometry_lookup`: model as written in the cell -> its geometry,
    None when unknown. Rules that are not certain become warnings and let the cell run.
    """
    machine = hardware or matrix.hardware
    planned: list[PlannedCell] = []
    excluded = [
        Excluded(cell=cell, cell_id=cell_id(cell), reasons=(f"excluded by the matrix: {why}",))
        for cell, why in matrix.author_excluded
    ]
    for cell in matrix.cells:
        verdict = check_cell(cell, geometry_lookup(cell.model), machine, cell.engine_version)
        if verdict.excluded:
            excluded.append(Excluded(cell=cell, cell_id=cell_id(cell), reasons=verdict.excluded))
        else:
            planned.append(PlannedCell(cell=cell, cell_id=cell_id(cell), warnings=verdict.warnings))
    return Expansion(cells=tuple(planned), excluded=tuple(excluded))


def select(expansion: Expansion, only: str | None) -> Expansion:
    """The part of an expansion that `--only EXPR` asks for, order kept.

    `moe_backend=cutlass|marlin,tp=2`: every term must hold. `vllm*marlin*`, `3f9c21ab`: a pattern over labels or the
    beginning of an id; of several, one must match. Raises UsageError for an unknown key and when nothing matches.
    """
    if not only:
        return expansion
    terms, names = parse(only)
    cells = tuple(item for item in expansion.cells if matches(item.cell, terms) and named(item.cell, names))
    excluded = tuple(item for item in expansion.excluded if matches(item.cell, terms) and named(item.cell, names))
    if not cells and not excluded:
        known = [*(item.cell for item in expansion.cells), *(item.cell for item in expansion.excluded)]
        labels = [cell.label() for cell in known]
        raise UsageError(f"--only {only}: no cell matches", hint="Cells: " + "; ".join(labels))
    return Expansion(cells=cells, excluded=excluded)
