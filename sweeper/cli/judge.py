"""`sweeper judge`: judge what a run stored again, with today's signatures and rules. Needs no GPU."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper import app


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, run id, a unique part of it, or `last`")
    parser.add_argument(
        "--signatures", type=Path, action="append", default=[], metavar="DIR", help="signatures of your own"
    )
    parser.add_argument("--keep", action="store_true", help="write the new verdicts into the run's record")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    changes = app.rejudge(app.read_run(args.logs, args.run), tuple(args.signatures), keep=args.keep)
    sys.stdout.write(json.dumps(changes, indent=1) + "\n" if args.json else app.changes_text(changes))
    if changes and not args.keep:
        print("only looked at; --keep writes them into the run's record", file=sys.stderr)
    return 0
