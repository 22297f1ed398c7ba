"""`sweeper plan`: what a matrix would do, without doing it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper.config import load_matrix
from sweeper.core.values import LAUNCHERS
from sweeper.plan.rows import make_plan
from sweeper.plan.text import text


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("matrix", metavar="MATRIX", type=Path, help="matrix file, e.g. matrices/any-moe.yaml")
    parser.add_argument("--json", action="store_true", help="one JSON object, schema 1")
    parser.add_argument("--show-commands", action="store_true", help="the exact command of every cell, to paste")
    parser.add_argument("--launcher", choices=LAUNCHERS, help="as `sweeper run --launcher`")
    parser.add_argument("--image", help="as `sweeper run --image`")
    parser.add_argument(
        "--only", metavar="EXPR", help="terms such as moe_backend=cutlass,tp=2, or patterns over labels, or ids"
    )


def run(args: argparse.Namespace) -> int:
    plan = make_plan(load_matrix(args.matrix), only=args.only, launcher=args.launcher, image=args.image)
    if args.json:
        sys.stdout.write(json.dumps(plan.to_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(text(plan, commands=args.show_commands))
    return 0
