"""A matrix as rows of a plan: what runs, what does not and why, how it would be started, what it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sweeper.checkpoint import model_geometry, model_problem, weights_bytes
from sweeper.core import codec
from sweeper.core.arguments import for_machine
from sweeper.core.bounds import TimeBound, time_bound
from sweeper.core.expand import expand, select, started_by
from sweeper.core.memory import MemoryFit, fit
from sweeper.core.values import Cell, Expansion, Matrix, Unsupported
from sweeper.engines import registry
from sweeper.plan.commands import command_line
from sweeper.plan.sizes import sizes

Status = Literal["run", "warn", "excluded"]
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One cell. `reasons`: why it is excluded, or what to know before it runs."""

    cell: Cell
    cell_id: str
    status: Status
    reasons: tuple[str, ...]
    memory: MemoryFit | None
    command: str | None
    """None for a cell that the engine cannot express."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rows in run order, the excluded ones after them."""

    matrix: Matrix
    rows: tuple[PlanRow, ...]
    bound: TimeBound
    sizes: tuple[str, ...]
    """One sentence per model: how many of these GPUs hold it."""

    def to_json(self) -> dict[str, Any]:
        """The object of `sweeper plan --json`, schema 1."""
        return {
            "schema": SCHEMA,
            "matrix": self.matrix.name,
            "title": self.matrix.title,
            "hardware": codec.dump(self.matrix.hardware),
            "workloads": [codec.dump(workload) for workload in self.matrix.workloads],
            "notes": list(self.matrix.notes),
            "sizes": list(self.sizes),
            "cells": [_row_json(row) for row in self.rows],
            "time_bound_s": self.bound.total_s,
        }


def make_plan(
    matrix: Matrix, *, only: str | None = None, launcher: str | None = None, image: str | None = None
) -> Plan:
    """The plan for the hardware that the matrix names. Raises UsageError for a bad `only`, `launcher` or `image`."""
    matrix = started_by(matrix, launcher, image)
    expansion = select(expand(matrix, matrix.hardware, model_geometry), only)
    rows = _rows(matrix, expansion, launcher)
    running = [row.cell for row in rows if row.status != "excluded"]
    on_gpu = matrix.hardware.count != 0
    bound = time_bound(running, matrix.workloads, matrix.policy, on_gpu=on_gpu)
    told = sizes([row.cell for row in rows], matrix.hardware, matrix.workloads)
    return Plan(matrix=matrix, rows=rows, bound=bound, sizes=told)


def _rows(matrix: Matrix, expansion: Expansion, launcher: str | None) -> tuple[PlanRow, ...]:
    problem = _remembered(model_problem)
    rows = []
    for item in expansion.cells:
        command, refusal = _command(matrix, item.cell, launcher)
        missing = problem(item.cell.model)
        told = (*item.warnings, *([missing] if missing else []))
        status: Status = "excluded" if refusal else "warn" if told else "run"
        rows.append(
            PlanRow(
                cell=item.cell,
                cell_id=item.cell_id,
                status=status,
                reasons=(refusal,) if refusal else told,
                memory=_memory(matrix, item.cell),
                command=command,
            )
        )
    for left_out in expansion.excluded:
        rows.append(
            PlanRow(
                cell=left_out.cell,
                cell_id=left_out.cell_id,
                status="excluded",
                reasons=left_out.reasons,
                memory=_memory(matrix, left_out.cell),
                command=_command(matrix, left_out.cell, launcher)[0],
            )
        )
    return tuple(sorted(rows, key=lambda row: row.status == "excluded"))


def _command(matrix: Matrix, cell: Cell, launcher: str | None) -> tuple[str | None, str | None]:
    """(command, why there is none)."""
    plan = registry.get(cell.engine).plan(cell)
    if isinstance(plan, Unsupported):
        return None, plan.reason
    return command_line(cell, for_machine(plan, matrix.hardware), launcher), None


def _memory(matrix: Matrix, cell: Cell) -> MemoryFit | None:
    """None for a model whose geometry nobody knows, for CPUs, and for a foreign format of unknown size."""
    geometry, exact = model_geometry(cell.model), weights_bytes(cell.model)
    if geometry is None or matrix.hardware.count == 0 or (cell.engine == "command" and exact is None):
        return None
    return fit(cell, geometry, matrix.hardware, matrix.workloads, weights_bytes=exact)


def _remembered(ask: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """One look per model."""
    known: dict[str, str | None] = {}

    def answer(model: str) -> str | None:
        if model not in known:
            known[model] = ask(model)
        return known[model]

    return answer


def _row_json(row: PlanRow) -> dict[str, Any]:
    return {
        "id": row.cell_id,
        "label": row.cell.label(),
        "status": row.status,
        "reasons": list(row.reasons),
        "config": codec.dump(row.cell),
        "memory": row.memory.to_json() if row.memory else None,
        "command": row.command,
    }
