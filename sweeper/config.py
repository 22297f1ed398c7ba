"""Files a person writes, as values: the matrix here; signatures and claims are read beside their own modules."""

from __future__ import annotations

from sweeper.matrix.load import load_matrix

__all__ = ["load_matrix"]
