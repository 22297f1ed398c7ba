"""`sweeper schema`: the JSON Schema of the matrix file, for editors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sweeper.matrix.schema import schema_text
from sweeper.store.rundir import write_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it there instead of standard output")


def run(args: argparse.Namespace) -> int:
    if args.out is None:
        sys.stdout.write(schema_text())
        return 0
    write_bytes(args.out, schema_text().encode(), hint="Choose another: --out FILE")
    return 0
