"""`sweeper reproduce`: run somebody else's bug report. Exit 0: reproduced; 1: not, or differently."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper.bugreport import commands, replay
from sweeper.cli.gpus import add_gpus


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archive", metavar="ARCHIVE", type=Path, help="from `sweeper bugreport`, or its unpacked folder"
    )
    parser.add_argument("--python", metavar="PY", help="interpreter of an environment that holds the engine")
    parser.add_argument("--image", metavar="IMG", help="run it in this image instead")
    parser.add_argument(
        "--trust", action="store_true", help="run programs, images and settings that the archive brings"
    )
    add_gpus(parser, "GPUs to use")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where the run is kept (default logs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    options = commands.ReplayOptions(
        archive=args.archive,
        python=args.python,
        image=args.image,
        trust=args.trust,
        logs=args.logs,
        gpus=args.gpus,
    )
    found = commands.reproduce(options, lambda text: print(text, file=sys.stderr, flush=True))
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n" if args.json else replay.as_text(found))
    return 0 if found["result"] == "reproduced" else 1
