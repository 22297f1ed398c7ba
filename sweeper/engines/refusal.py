"""How a planner says that a cell has no spelling in its engine."""

from __future__ import annotations


class Refused(Exception):
    """Raised inside a planner, becomes `Unsupported`; never leaves it."""
