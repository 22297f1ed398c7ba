"""What a machine looked like right before a launch: CPU, page cache, and who was on the cell's GPUs."""

from __future__ import annotations

from dataclasses import dataclass

BUSY_SHARE = 0.25
"""Share of the cores from which other work before a launch is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuState:
    """Over all cores that say. None and empty: this kernel or container does not tell."""

    governors: tuple[str, ...] = ()
    mhz: tuple[float, float] | None = None
    """Lowest and highest core now."""
    cores: int | None = None
    busy_cores: float | None = None
    """Mean over a tenth of a second; no server of the sweep runs at that moment, so this is other people's work."""

    @property
    def crowded(self) -> bool:
        """Other work keeps a core, and a quarter of all cores, busy."""
        return self.busy_cores is not None and self.busy_cores >= max(1.0, BUSY_SHARE * (self.cores or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCache:
    """Memory that files may use, and how much of a checkpoint is in it already. Bytes."""

    cached_bytes: int | None = None
    """Of all files on this machine."""
    available_bytes: int | None = None
    checkpoint_bytes: int | None = None
    checkpoint_cached_bytes: int | None = None
    """None: no checkpoint on this disk, or the kernel tells only the owner of the files."""

    @property
    def warm_share(self) -> float | None:
        """Share of the checkpoint that needs no disk; None where unknown."""
        if self.checkpoint_cached_bytes is None or not self.checkpoint_bytes:
            return None
        return self.checkpoint_cached_bytes / self.checkpoint_bytes
