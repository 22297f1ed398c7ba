"""`sweeper status`: progress of a run, also of one that another process is doing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper import app


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default="last", help="run folder, id, or `last` (default)")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    status = app.status(app.read_run(args.logs, args.run))
    sys.stdout.write(json.dumps(status, indent=1) + "\n" if args.json else app.status_text(status))
    return 0
