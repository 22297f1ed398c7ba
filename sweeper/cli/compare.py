"""`sweeper compare`: difference of two runs, with significance."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from sweeper import app, comparison


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="RUN_A", help="run folder, run id, a unique part of it, or `last`")
    parser.add_argument("b", metavar="RUN_B", help="the run that is held against it")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    a, b = app.read_run(args.logs, args.a), app.read_run(args.logs, args.b)
    changes = comparison.compare(a, b)
    if args.json:
        sys.stdout.write(json.dumps(comparison.as_json(a, b, changes), indent=1) + "\n")
    else:
        sys.stdout.write(comparison.as_text(a, b, changes, shutil.get_terminal_size((100, 24)).columns))
    return 0
