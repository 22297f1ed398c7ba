"""`sweeper diagnose LOG...`: the root cause of any engine's log."""

from __future__ import annotations

import argparse
import os
import sys

import orjson

from sweeper.core.errors import SweeperError
from sweeper.diagnosis.diagnose import diagnose_source
from sweeper.diagnosis.render import render
from sweeper.diagnosis.signature import load_signatures
from sweeper.diagnosis.sources import CONTAINER, open_source


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "log",
        nargs="*",
        metavar="LOG",
        help="a log, plain, .gz or .zst; - is standard input; container:NAME a container",
    )
    parser.add_argument(
        "--container", action="append", default=[], metavar="NAME", help="log of a container, running or dead"
    )
    parser.add_argument(
        "--engine", choices=("vllm", "sglang", "transformers", "llamacpp", "trtllm"), help="where the log does not say"
    )
    parser.add_argument(
        "--signatures", action="append", default=[], metavar="DIR", help="a folder of signatures of your own"
    )
    parser.add_argument("--json", action="store_true", help="one object per log (schema 1)")
    parser.epilog = "exit code: 0 nothing wrong, 1 a cause or an unexplained death, 2 a log could not be read"


def run(args: argparse.Namespace) -> int:
    """0 healthy, 1 something found, 2 unreadable (the other logs are still read)."""
    names = [*args.log, *(CONTAINER + name for name in args.container)]
    if not names:
        print("error: no log named; sweeper diagnose FILE, or - for standard input", file=sys.stderr)
        return 2
    signatures = load_signatures(args.signatures)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    worst = 0
    for index, name in enumerate(names):
        try:
            diagnosis = diagnose_source(open_source(name), signatures, engine=args.engine)
        except SweeperError as error:
            print(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
            worst = 2
            continue
        if args.json:
            sys.stdout.write(orjson.dumps(diagnosis.to_json(name)).decode() + "\n")
        else:
            print(("\n" if index else "") + render(name, diagnosis, colour=colour))
        worst = max(worst, 0 if diagnosis.verdict == "benign" else 1)
    return worst
