"""`sweeper schema`: the JSON Schema of the matrix file, for editors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sweeper.core.errors import EnvironmentNotReady
from sweeper.matrix.schema import schema_text


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it there instead of standard output")


def run(args: argparse.Namespace) -> int:
    if args.out is None:
        sys.stdout.write(schema_text())
        return 0
    try:
        args.out.write_text(schema_text(), encoding="utf-8")
    except OSError as error:
        raise EnvironmentNotReady(f"cannot write {args.out}: {error.strerror}") from None
    return 0
