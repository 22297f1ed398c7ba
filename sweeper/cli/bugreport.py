"""`sweeper bugreport`: one archive a kernel engineer can run. Nothing is sent anywhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sweeper import app
from sweeper.bugreport import commands
from sweeper.core.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trial", metavar="TRIAL", help="trial id (cell-attempt), cell id, or a unique start of one")
    parser.add_argument("--run", default="last", help="run folder or id (default: the last run)")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument(
        "--for", dest="wanted", metavar="PROJECT", help="vllm, sglang, flashinfer or cutlass (default: by cause)"
    )
    parser.add_argument("--out", type=Path, help="archive, .tar.gz or .zip, or a folder for it (default: here)")
    parser.add_argument("--hide", action="append", default=[], metavar="WORD", help="hide this word too")
    parser.add_argument("--dry-run", action="store_true", help="only show what would leave the machine")
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.add_argument("--force", action="store_true", help="replace an archive that exists")


def run(args: argparse.Namespace) -> int:
    record = app.read_run(args.logs, args.run)
    draft = commands.draft(
        record, args.trial, wanted=args.wanted, out=args.out, hide=tuple(args.hide), force=args.force or args.dry_run
    )
    print(draft.preview(), file=sys.stdout if args.dry_run else sys.stderr, flush=True)
    if args.dry_run:
        return 0
    if not args.yes and not _agreed():
        print("nothing was written", file=sys.stderr)
        return 1
    print(draft.write())
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody to ask: standard input is no terminal", hint="Add --yes to write it, --dry-run to look."
        )
    print("Write the archive? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
