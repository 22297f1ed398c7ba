"""How many of the machine's GPUs a model needs: one sentence per model, also where no cell of the matrix asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweeper.checkpoint import model_geometry, weights_bytes
from sweeper.core.geometry import Geometry
from sweeper.core.memory import GIB, MemoryFit, fit
from sweeper.core.values import Cell, Hardware, Parallelism, Workload

DEGREES = (1, 2, 4, 8, 16, 32)


def sizes(cells: Sequence[Cell], hardware: Hardware, workloads: Sequence[Workload]) -> tuple[str, ...]:
    """For each model and format on GPUs: size, the largest TP that does not hold it, the smallest that does."""
    if hardware.count == 0 or hardware.memory_gib is None:
        return ()
    firsts: dict[tuple[str, str | None], Cell] = {}
    for cell in cells:
        firsts.setdefault((cell.model, cell.quantization), cell)
    return tuple(line for cell in firsts.values() for line in _sentence(cell, hardware, workloads))


def _sentence(cell: Cell, hardware: Hardware, workloads: Sequence[Workload]) -> Iterator[str]:
    geometry, exact = model_geometry(cell.model), weights_bytes(cell.model)
    if geometry is None or (cell.engine == "command" and exact is None):
        return
    plain = replace(cell, speculative=None)
    tried = [(tp, _at(plain, tp, geometry, hardware, workloads, exact)) for tp in DEGREES]
    too_small = [(tp, one) for tp, one in tried if one.fits is False]
    enough = next(((tp, one) for tp, one in tried if one.fits), None)
    total = tried[0][1].checkpoint_bytes / 1e9
    parts = [f"{cell.model}{f' in {cell.quantization}' if cell.quantization else ''}: {total:.0f} GB of weights"]
    if too_small:
        tp, one = too_small[-1]
        parts.append(f"does not fit on {_cards(tp)} ({_load(one)})")
    if enough:
        parts.append(f"fits at TP={enough[0]} on {_cards(enough[0])} ({_load(enough[1])})")
    yield "; ".join(parts)


def _at(
    cell: Cell, tp: int, geometry: Geometry, hardware: Hardware, workloads: Sequence[Workload], exact: int | None
) -> MemoryFit:
    return fit(replace(cell, parallelism=Parallelism(tp=tp)), geometry, hardware, workloads, weights_bytes=exact)


def _cards(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _load(one: MemoryFit) -> str:
    weights = one.parts["weights"] / GIB
    limit = f" of {one.limit_bytes / GIB:.1f}" if one.limit_bytes is not None else ""
    return f"{one.per_rank_bytes / GIB:.1f}{limit} GiB each, {weights:.1f} of it weights"
