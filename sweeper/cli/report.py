"""`sweeper report`: the ranking of a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sweeper import app


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, run id, a unique part of it, or `last`")
    parser.add_argument("--format", default="text", metavar="F", help="text, md, csv, json or html (default text)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("--out", type=Path, help="write to this file instead of standard output")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")


def run(args: argparse.Namespace) -> int:
    text = app.render(app.read_run(args.logs, args.run), args.format)
    if args.out:
        app.write_text(args.out, text)
    else:
        sys.stdout.write(text)
    return 0
