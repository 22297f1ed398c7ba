"""Which cells are launched next: screening rounds, then confirmation of the leaders, as `core.racing` plans it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sweeper.core.values import Expansion, Matrix
from sweeper.core.verdicts import Verdict
from sweeper.runner import plain_rounds


def scheduler(matrix: Matrix, expansion: Expansion) -> Callable[[Mapping[str, Sequence[Verdict]]], Sequence[str]]:
    """Verdicts so far -> the next batch of cell ids."""
    order = [planned.cell_id for planned in expansion.cells]
    return plain_rounds(order, matrix.policy.launches)
