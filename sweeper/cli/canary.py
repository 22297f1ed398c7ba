"""`sweeper canary`: build a small checkpoint with golden vectors; list geometries; unpack the speaking one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sweeper.canary import source
from sweeper.canary.speaking import unpack
from sweeper.cli.argtypes import positive

QUANTS = ("bf16", "fp8", "fp8-block", "nvfp4", "nvfp4-w4a16", "mxfp4", "int4")


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="build|list|unpack")
    build = commands.add_parser("build", help="checkpoint and golden vectors from a model's geometry")
    build.add_argument("--like", required=True, metavar="MODEL", help="config.json, model folder or `canary list` name")
    build.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder for the checkpoint")
    build.add_argument("--quant", choices=QUANTS, default="bf16", help="format of the weights (default bf16)")
    build.add_argument(
        "--layers", type=positive, metavar="N", help="default: fewest with every kind of layer, 4 for tiny"
    )
    build.add_argument("--experts", type=positive, metavar="N", help="default: as the model")
    build.add_argument("--vocab", type=positive, metavar="N", help="at least 1024; default 2048")
    build.add_argument("--mtp", action="store_true", help="add a multi-token-prediction layer")
    build.add_argument("--seed", type=int, default=0, help="default 0; the same seed gives the same bytes")
    build.add_argument("--keep-weights", action="store_true", help="change the format of the model's own bf16 weights")
    build.add_argument("--no-golden", action="store_true", help="checkpoint only")
    build.add_argument("--json", action="store_true", help="machine-readable")
    listing = commands.add_parser("list", help="names that --like takes")
    listing.add_argument("--json", action="store_true", help="machine-readable")
    copy = commands.add_parser("unpack", help="copy the speaking canary to a folder")
    copy.add_argument("out", type=Path, metavar="DIR")


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        known = source.names()
        sys.stdout.write(json.dumps(known) + "\n" if args.json else "\n".join(known) + "\n")
        return 0
    if args.action == "unpack":
        print(unpack(args.out))
        return 0
    from sweeper.canary import needs

    needs.require()
    from sweeper.canary.make import Order, make

    order = Order(
        like=args.like, out=args.out, quant=args.quant, layers=args.layers, experts=args.experts, vocab=args.vocab,
        mtp=args.mtp, seed=args.seed, keep_weights=args.keep_weights, golden=not args.no_golden,
    )  # fmt: skip
    made = make(order, progress=lambda text: print(text, file=sys.stderr, flush=True))
    sys.stdout.write(json.dumps(made.to_json(), indent=1) + "\n" if args.json else made.to_text())
    return 0
