"""`sweeper accuracy`: run a preset, import lm-eval or LiveBench results, compare two results with a test."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper.accuracy import result as results
from sweeper.accuracy.importers import import_file
from sweeper.accuracy.presets import PRESETS, RunOptions, run_preset
from sweeper.accuracy.render import against, text_of
from sweeper.cli.argtypes import positive, server_url


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="run|import|compare")
    run_ = commands.add_parser("run", help="ask a server that is up")
    run_.add_argument("url", type=server_url, metavar="URL", help="base URL, e.g. http://127.0.0.1:8000")
    run_.add_argument("--preset", required=True, metavar="NAME", help=", ".join(PRESETS))
    run_.add_argument("--model", metavar="NAME", help="served model (default: the first that the server lists)")
    run_.add_argument("--max-tokens", type=positive, default=2048, metavar="N", help="per answer (default 2048)")
    run_.add_argument("--concurrency", type=positive, default=8, metavar="N", help="questions in flight (default 8)")
    run_.add_argument("--reference", type=Path, metavar="FILE", help="result of the reference, for a paired test")
    run_.add_argument("--json", action="store_true", help="machine-readable; what --reference and compare read")
    importing = commands.add_parser("import", help="read lm-eval or LiveBench result files")
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE")
    importing.add_argument("--json", action="store_true", help="machine-readable, one result a line")
    comparing = commands.add_parser("compare", help="is B different from A, by a test")
    comparing.add_argument("a", type=Path, metavar="A", help="reference: a result of ours, lm-eval's or LiveBench's")
    comparing.add_argument("b", type=Path, metavar="B")
    comparing.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    if args.action == "import":
        for found in (item for path in args.files for item in import_file(path)):
            sys.stdout.write(json.dumps(found.to_json()) + "\n" if args.json else text_of(found))
        return 0
    if args.action == "compare":
        compared = against(results.read_any(args.a), results.read_any(args.b))
        sys.stdout.write(json.dumps(compared.to_json(), indent=1) + "\n" if args.json else compared.to_text())
        return 0
    reference = results.read_any(args.reference) if args.reference else None
    options = RunOptions(max_tokens=args.max_tokens, concurrency=args.concurrency)
    quiet = args.json or not sys.stderr.isatty()
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
    found = run_preset(args.url, args.model, args.preset, options, say)
    compared_with = against(reference, found) if reference else None
    if args.json:
        extra = {"against": compared_with.to_json()} if compared_with else {}
        sys.stdout.write(json.dumps({**found.to_json(), **extra}, indent=1) + "\n")
    else:
        sys.stdout.write(text_of(found) + (compared_with.to_text() if compared_with else ""))
    return 0
