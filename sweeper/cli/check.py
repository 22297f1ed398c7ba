"""`sweeper check`: numerics and text of a server that is already up. Exit 0 when right, 1 otherwise."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

from sweeper.checking import CheckOptions, as_json, check_server
from sweeper.cli.argtypes import positive, server_url
from sweeper.core.errors import UsageError
from sweeper.core.numerics import Check
from sweeper.report.columns import number


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", type=server_url, metavar="URL", help="base URL, e.g. http://127.0.0.1:8000")
    parser.add_argument("--golden", type=Path, metavar="FILE", help="golden vectors of the checkpoint that is served")
    parser.add_argument("--model", metavar="NAME", help="served model (default: the first that the server lists)")
    parser.add_argument("--batches", default="1,4,8", metavar="N,N", help="requests in flight (default 1,4,8)")
    parser.add_argument(
        "--generations", type=positive, default=80, metavar="N", help="generations watched for collapse (80)"
    )
    parser.add_argument(
        "--weight-only",
        action="store_true",
        help="the server's log names Marlin for experts and linear layers: no tolerance for activations in 4 bit",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    options = CheckOptions(batches=_batches(args.batches), generations=args.generations, weight_only=args.weight_only)
    quiet = args.json or not sys.stderr.isatty()
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
    check = check_server(args.url, args.model, args.golden, options, say)
    sys.stdout.write(json.dumps(as_json(check), indent=1) + "\n" if args.json else _text(check))
    return 0 if check.verdict == "right" else 1


def _batches(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and 0 < int(part) <= 256 for part in parts):
        raise UsageError(f"--batches {text}: numbers from 1 to 256, separated by commas", hint="--batches 1,4,8")
    return tuple(sorted({int(part) for part in parts}))


def _text(check: Check) -> str:
    rows = [
        [
            name,
            group.positions,
            _signed(group.shift),
            _plain(group.kl_topk),
            _small(group.kl_typical),
            _percent(group.argmax_agreement),
        ]
        for name, group in check.groups.items()
    ]
    by_text = check.verdict != "unchecked" and not check.groups and not check.nan
    lines = [f"verdict: {check.verdict}" + (", by its text alone" if by_text else "")]
    lines += [f"  {reason}" for reason in check.reasons]
    if check.weight_only and check.weight_only.verdict != "right":
        lines.append(
            f"{check.weight_only.verdict} if it multiplies weights only (Marlin for experts and linear layers):"
        )
        lines += [f"  {reason}" for reason in check.weight_only.reasons]
    if rows:
        headers = ["group", "tokens", "NLL shift", "KL top-k", "KL typical", "best token agrees"]
        lines.append(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    lines.append(f"degenerate generations: {check.degenerate} of {check.generations}")
    lines += [f"not checked: {item}" for item in check.unchecked]
    return "\n".join(lines) + "\n"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{number(100 * value)} %"
