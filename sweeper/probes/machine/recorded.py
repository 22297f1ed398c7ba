"""GPU traces as JSON lines, plain or gzipped: one file holds the windows of one workload at one concurrency."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from sweeper.core.errors import BadFile
from sweeper.core.gputrace import GpuTrace, to_rows, traces_of_rows


def write_traces(path: Path, traces: Sequence[GpuTrace]) -> None:
    """One row a line, a header before each window; gzip when the name ends in .gz. Raises OSError."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for trace in traces for row in to_rows(trace))
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_traces(path: Path) -> list[GpuTrace]:
    """Windows in the order in which they were measured. Raises BadFile with the line that is wrong."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as problem:
        raise BadFile(str(path), str(problem)) from problem
    rows = []
    for n, line in enumerate(text.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as problem:
            raise BadFile(str(path), f"not JSON: {problem.msg}", line=n) from problem
    try:
        return traces_of_rows(rows)
    except (ValueError, AttributeError, TypeError) as problem:
        raise BadFile(str(path), str(problem)) from problem
