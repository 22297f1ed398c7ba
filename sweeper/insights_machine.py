"""What the machine did to a run and to a trial, in sentences: other work, governors, states of the GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.core import codec
from sweeper.core.energy import MachineWindow
from sweeper.core.observations import MachineBefore, MachineWatched
from sweeper.store.record import RunRecord


def machine_notes(record: RunRecord) -> list[str]:
    """What the machine did to the whole run: other work, governors, windows that nobody could meter."""
    seen = (item for trial in record.trials.values() for item in trial.observed)
    cpus = [item.cpu for item in seen if isinstance(item, MachineBefore)]
    notes = []
    crowded = [cpu for cpu in cpus if cpu.crowded]
    if crowded:
        most = max(cpu.busy_cores or 0.0 for cpu in crowded)
        notes.append(
            f"before {len(crowded)} of {len(cpus)} launches other work kept up to {most:.1f} of {crowded[0].cores} "
            "cores busy: time to first token suffers"
        )
    governors = sorted({name for cpu in cpus for name in cpu.governors} - {"performance"})
    if governors:
        notes.append(
            f"CPU governor {', '.join(governors)}: time to first token varies; "
            "mend: sudo cpupower frequency-set -g performance"
        )
    return [*notes, *_unmetered(record)]


def _unmetered(record: RunRecord) -> list[str]:
    """Why the energy columns are empty, once per reason; nothing while at least one point has its energy."""
    energies = [
        point.energy
        for trial in record.trials.values()
        if trial.verdict
        for point in trial.verdict.points
        if point.energy is not None
    ]
    if any(energy.joules is not None for energy in energies):
        return []
    return [f"energy: - ({why})" for why in dict.fromkeys(energy.why for energy in energies) if why]


def machine_lines(watched: Sequence[Mapping[str, Any]]) -> list[str]:
    """The machine of one trial, from its dumped `MachineBefore` and `MachineWatched`: a line before, one a window."""
    lines = []
    for item in watched:
        if "cpu" in item:
            lines.append(f"  before    {_before(codec.load(MachineBefore, item))}")
            continue
        found = codec.load(MachineWatched, item)
        for said, times in Counter(_window(window) for window in found.windows).items():
            repeated = f" ({times} windows)" if times > 1 else ""
            lines.append(f"  GPUs      {found.workload} at {found.concurrency}: {said}{repeated}")
    return lines


def _before(found: MachineBefore) -> str:
    share = found.page_cache.warm_share
    parts = (
        f"{found.cpu.busy_cores:.1f} of {found.cpu.cores} cores busy" if found.cpu.busy_cores is not None else "",
        f"{share:.0%} of the checkpoint in the page cache" if share is not None else "",
        f"{len(found.gpu_pids)} processes on the GPUs" if found.gpu_pids is not None else "",
    )
    return ", ".join(part for part in parts if part) or "nothing known"


def _window(found: MachineWindow) -> str:
    peak = found.memory_peak_bytes
    parts = (
        found.energy.state or "state unknown",
        f"{found.energy.mean_w:.0f} W" if found.energy.mean_w is not None else "",
        f"SM {_range(found.sm_mhz)} MHz" if found.sm_mhz else "",
        f"memory {_range(found.mem_mhz)} MHz" if found.mem_mhz else "",
        f"{_range(found.temp_c)} C" if found.temp_c else "",
        f"{peak / 2**30:.1f} GiB at most" if peak is not None else "",
        *found.invalid,
        *found.notes,
    )
    return ", ".join(part for part in parts if part)


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"
