"""`sweeper clean`: remove the containers and processes that crashed runs left, by label only."""

from __future__ import annotations

import argparse
import json
import sys

from sweeper import machine


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help="only what this run id left (default: every run's)")
    parser.add_argument("--all", action="store_true", help="also what sweeps that still run have started")
    parser.add_argument("--caches", action="store_true", help="also Docker volumes with compile caches")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    done = machine.clean(run_id=args.run, also_live=args.all, dry_run=args.dry_run)
    caches = machine.clean_caches(dry_run=args.dry_run) if args.caches else ()
    if done.docker_problem:
        print(f"containers were not looked for: {done.docker_problem}", file=sys.stderr)
    if args.json:
        result = machine.cleaned_json(done, dry_run=args.dry_run, caches=caches)
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        sys.stdout.write(machine.cleaned_text(done, dry_run=args.dry_run, caches=caches))
    return 1 if done.failed else 0
