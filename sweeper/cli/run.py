"""`sweeper run`: the sweep. Exit 0: all PASS or SKIP; 1: some FAIL or INCONCLUSIVE; 130: interrupted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sweeper import app
from sweeper.cli.gpus import add_gpus
from sweeper.core.values import LAUNCHERS


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("matrix", metavar="MATRIX", type=Path, help="matrix file, e.g. matrices/quickstart-cpu.yaml")
    parser.add_argument("--resume", metavar="RUN", help="continue this run: folder, id, or `last`")
    parser.add_argument("--only", metavar="EXPR", help="cells to run, e.g. moe_backend=cutlass,tp=2 or a label pattern")
    parser.add_argument("--launcher", choices=LAUNCHERS, help="for cells that name none (default: what each can use)")
    parser.add_argument("--image", help="image for every cell, with --launcher docker")
    parser.add_argument(
        "--launches", type=int, metavar="N", help="launches per cell in contention (default: the matrix)"
    )
    add_gpus(parser, "GPUs to use")
    parser.add_argument(
        "--signatures", type=Path, action="append", default=[], metavar="DIR", help="signatures of your own"
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    options = app.RunOptions(
        matrix=args.matrix,
        logs=args.logs,
        resume=args.resume,
        only=args.only,
        launcher=args.launcher,
        image=args.image,
        launches=args.launches,
        gpus=args.gpus,
        signatures=tuple(args.signatures),
    )
    result = app.run_sweep(options)
    sys.stdout.write(app.render(result.record, "json" if args.json else "text"))
    return result.exit_code
