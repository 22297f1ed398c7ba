"""What a feasibility rule sees and what it says."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.core.geometry import Geometry
from sweeper.core.values import Cell, Hardware
from sweeper.core.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One cell and all that is known around it."""

    cell: Cell
    geometry: Geometry | None
    hardware: Hardware
    version: Version
    format: str | None
    """Kernel table: nvfp4, mxfp4, fp8, mxfp8, bf16, int4; None: unknown."""
    family: str | None
    """The exact format: nvfp4-w4a16, fp8-block, ..."""
    cpu: bool
    """An engine on CPUs."""

    @property
    def sm(self) -> int | None:
        """Compute capability times ten, 120 for "12.0"; None: unknown or no GPU."""
        text = (self.hardware.sm or "").lower().removeprefix("sm").strip("_ ")
        if self.cpu or not text:
            return None
        major, _, minor = text.partition(".")
        if not major.isdigit():
            return None
        if minor:
            return int(major) * 10 + (int(minor[0]) if minor[0].isdigit() else 0)
        return int(major) if int(major) >= 50 else int(major) * 10

    @property
    def sm_family(self) -> int | None:
        """90, 100, 120: SM 10.3 counts as 100, SM 12.1 as 120."""
        return None if self.sm is None else self.sm // 10 * 10


@dataclass(frozen=True, slots=True)
class Reason:
    """`certain` excludes, otherwise it warns."""

    text: str
    certain: bool


def no(text: str, source: str) -> Reason:
    return Reason(f"{text} [{source}]", certain=True)


def perhaps(text: str, source: str) -> Reason:
    return Reason(f"{text} [{source}]", certain=False)
