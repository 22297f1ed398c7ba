"""`sweeper audit`: does B change kernels, or only Python? Images, wheels, folders, environments, running containers."""

from __future__ import annotations

import argparse
import json
import sys
import time

from sweeper.audit import show, whole

FORMS = (
    "a wheel, zip, tar (docker save or export too), folder, virtual environment, image:NAME; alone also "
    "container:NAME (against its image) and process:PID"
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help=f"the base: {FORMS}")
    parser.add_argument("b", metavar="B", nargs="?", help="what is said to be better")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PREFIX", help="compare this path only; repeatable"
    )
    parser.add_argument("--all", action="store_true", help="list every file that is not the same")
    parser.add_argument("--diff-lines", type=int, default=200, metavar="N", help="lines of diff to show (default 200)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    progress = _Progress(sys.stderr.isatty())
    result, findings = whole.run_audit(
        args.a, args.b, only=args.only, diff_lines=max(args.diff_lines, 0), on_progress=progress
    )
    progress.done()
    if args.json:
        sys.stdout.write(json.dumps(show.as_json(result, findings), indent=1) + "\n")
    else:
        sys.stdout.write(show.as_text(result, findings, everything=args.all))
    return 0


class _Progress:
    """The file at work, twice a second, on a terminal only."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._last = shown, 0.0

    def __call__(self, path: str) -> None:
        now = time.monotonic()
        if self._shown and now - self._last > 0.5:
            self._last = now
            sys.stderr.write(f"\r\x1b[K{path[-100:]}")
            sys.stderr.flush()

    def done(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
