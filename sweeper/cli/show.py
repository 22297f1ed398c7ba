"""`sweeper show`: everything about one trial, with its evidence."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper import app


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trial", metavar="TRIAL", help="trial id (cell-attempt), cell id, or a unique start of one")
    parser.add_argument("--run", default="last", help="run folder or id (default: the last run)")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--command", action="store_true", help="only the command line, ready to paste")
    parser.add_argument("--samples", action="store_true", help="only the sample answers")
    parser.add_argument("--effective", action="store_true", help="only requested against effective")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    shown = app.show(app.read_run(args.logs, args.run), args.trial)
    if args.json:
        sys.stdout.write(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
        return 0
    part = next((name for name in ("command", "samples", "effective") if getattr(args, name)), None)
    sys.stdout.write(app.show_text(shown, part))
    return 0
