"""GPU traces of a trial: given their tokens, kept beside the trial, and judged again from their files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.core import observations as seen
from sweeper.core.energy import MachineWindow, judge_window, said_by_the_machine
from sweeper.core.energyruns import total_energy
from sweeper.core.errors import BadFile
from sweeper.core.gputrace import GpuTrace
from sweeper.core.observations import Observation
from sweeper.core.points import DecodePoint
from sweeper.core.presets import PRESETS
from sweeper.core.windows import StreamTrace, tokens_at, trace_of
from sweeper.probes.machine.recorded import read_traces


def file_name(workload: str, concurrency: int) -> str:
    """`gpu-decode-c8.jsonl.gz`, in the trial's folder."""
    return f"gpu-{re.sub(r'[^A-Za-z0-9._-]', '-', workload)}-c{concurrency}.jsonl.gz"


def with_tokens(traces: Sequence[GpuTrace], requests: Sequence[Mapping[str, Any]]) -> list[GpuTrace]:
    """Each window with the output tokens that arrived in it. `requests`: the load run's records, on the same clock.

    None for a window whose requests were not kept, because the point was measured again.
    """
    streams = [_stream(record) for record in requests if record.get("stamps_us")]
    return [replace(trace, tokens=_tokens(streams, trace.window_s)) for trace in traces]


def _stream(record: Mapping[str, Any]) -> StreamTrace:
    sent_s = record["sent_s"]
    return trace_of({**record, "stamps": [sent_s + micros / 1e6 for micros in record["stamps_us"]]})


def _tokens(streams: Sequence[StreamTrace], window_s: tuple[float, float]) -> int | None:
    return round(sum(tokens_at(s, window_s[1]) - tokens_at(s, window_s[0]) for s in streams)) or None


def counting(preset: str, traces: Sequence[GpuTrace]) -> list[GpuTrace]:
    """The windows that a point stands on: all where a preset repeats itself, else the last (others were given up)."""
    known = PRESETS.get(preset)
    return list(traces) if known is not None and known.shape == "runs" else list(traces[-1:])


def watched(workload: str, concurrency: int, preset: str, traces: Sequence[GpuTrace]) -> seen.MachineWatched | None:
    """What the record says about the windows of one point; None without a trace."""
    windows = tuple(judge_window(trace) for trace in counting(preset, traces))
    return seen.MachineWatched(workload=workload, concurrency=concurrency, windows=windows) if windows else None


def judged_again(folder: Path, observed: Sequence[Observation]) -> list[Observation]:
    """Observations with every point judged from its GPU trace in `folder`; an unreadable file changes nothing."""
    fresh: dict[tuple[str, int], seen.MachineWatched] = {}
    for item in observed:
        if not isinstance(item, seen.PointMeasured):
            continue
        key = (item.workload, item.point.concurrency)
        path = folder / file_name(*key)
        if path.exists() and (found := _read(path, item)) is not None:
            fresh[key] = found
    return [_again(item, fresh) for item in observed]


def _read(path: Path, item: seen.PointMeasured) -> seen.MachineWatched | None:
    try:
        traces = read_traces(path)
    except BadFile:
        return None
    return watched(item.workload, item.point.concurrency, item.point.preset, traces)


def _again(item: Observation, fresh: Mapping[tuple[str, int], seen.MachineWatched]) -> Observation:
    if isinstance(item, seen.MachineWatched):
        return fresh.get((item.workload, item.concurrency), item)
    if isinstance(item, seen.PointMeasured) and (item.workload, item.point.concurrency) in fresh:
        return replace(item, point=_point(item.point, fresh[item.workload, item.point.concurrency].windows))
    return item


def _point(point: DecodePoint, windows: Sequence[MachineWindow]) -> DecodePoint:
    tokens = sum(_tokens_of(window) or 0.0 for window in windows)
    energy = windows[0].energy if len(windows) == 1 else total_energy([w.energy for w in windows], tokens)
    against = dict.fromkeys(cause for window in windows for cause in window.invalid)
    others = [cause for cause in point.invalid if not said_by_the_machine(cause)]
    return replace(point, energy=energy, invalid=(*others, *against))


def _tokens_of(window: MachineWindow) -> float | None:
    energy = window.energy
    if energy.joules is None or not energy.joules_per_1k_tokens:
        return None
    return 1000 * energy.joules / energy.joules_per_1k_tokens
