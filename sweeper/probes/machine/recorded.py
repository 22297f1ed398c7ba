"""GPU traces as JSON lines, plain or gzipped, and their replay through the judgement that live windows get."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from sweeper.core.energy import MachineWindow, judge_window
from sweeper.core.errors import BadFile
from sweeper.core.gputrace import GpuTrace, from_rows, to_rows


def write_trace(path: Path, trace: GpuTrace) -> None:
    """One row a line; gzip when the name ends in .gz."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in to_rows(trace))
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_trace(path: Path) -> GpuTrace:
    """Raises BadFile with the line that is wrong."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as problem:
        raise BadFile(str(path), str(problem)) from problem
    rows = []
    for n, line in enumerate(text.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as problem:
            raise BadFile(str(path), f"not JSON: {problem.msg}", line=n) from problem
    try:
        return from_rows(rows)
    except (ValueError, AttributeError) as problem:
        raise BadFile(str(path), str(problem)) from problem


def replay(path: Path, *, tokens: int | None = None, idle_w: float | None = None) -> MachineWindow:
    """Judge a recorded window again."""
    return judge_window(read_trace(path), tokens=tokens, idle_w=idle_w)
