"""`sweeper claims`: published figures. List them, hold a run against them, write the matrix that would test one."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.core.errors import UsageError

if TYPE_CHECKING:
    from sweeper.core.claims import Claim, Figure


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "check", "plan"))
    parser.add_argument(
        "what", nargs="?", help="check: a run folder, id or `last`; plan and list: a claim's id, or a part"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--claims", action="append", default=[], metavar="DIR", help="claims of your own")
    parser.add_argument("--id", action="append", default=[], metavar="GLOB", help="only these claims")
    parser.add_argument("--all", action="store_true", help="list claims about other models and GPUs as well")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="plan: write the matrix here (default: print it)")
    parser.add_argument("--against", metavar="FILE", help="check: `sweeper bench --json` of one server; - for stdin")
    parser.add_argument("--conditions", type=Path, metavar="FILE", help="with --against: its conditions, as YAML")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="with --against: one condition")
    # Plain parse_args takes an optional positional as absent when an option stands before it: `check --json RUN`.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]


def run(args: argparse.Namespace) -> int:
    """0; check: 1 where a claim was measured under its conditions and does not hold."""
    from sweeper.claimdata.load import begin_with, find, load_claims, select

    claims = select(load_claims(args.claims), args.id)
    if args.action == "check":
        return _check(args, claims)
    if args.action == "list":
        return _list(args, begin_with(claims, args.what) if args.what else claims)
    if not args.what:
        raise UsageError("plan needs a claim's id", hint="All ids: sweeper claims list")
    return _plan(args, find(claims, args.what))


def _list(args: argparse.Namespace, claims: tuple[Claim, ...]) -> int:
    from sweeper.claimdata.check import list_json, list_text

    listed = json.dumps(list_json(claims), indent=1, ensure_ascii=False) + "\n" if args.json else None
    sys.stdout.write(listed or list_text(claims, _width()))
    return 0


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _check(args: argparse.Namespace, claims: tuple[Claim, ...]) -> int:
    from sweeper.claimdata import check

    figures = _figures(args)
    results, spread = check.check_all(claims, figures), check.distributions(claims, figures)
    if args.json:
        sys.stdout.write(json.dumps(check.as_json(results, spread), indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(check.as_text(results, spread, everything=args.all or bool(args.id), width=_width()))
    return check.exit_code(results)


def _figures(args: argparse.Namespace) -> tuple[Figure, ...]:
    if args.against and args.what:
        raise UsageError("check takes a run or --against, not both")
    if args.against:
        from sweeper.claimdata.against import conditions_of, figures_of_bench

        return figures_of_bench(args.against, conditions_of(args.conditions, args.set))
    if not args.what:
        raise UsageError("check needs a run, or --against FILE", hint="sweeper claims check last")
    if args.conditions or args.set:
        raise UsageError("--conditions and --set go with --against; a run knows its own")
    from sweeper import app
    from sweeper.claimdata.figures import figures

    return figures(app.read_run(args.logs, args.what))


def _plan(args: argparse.Namespace, claim: Claim) -> int:
    from sweeper.claimdata.plan import matrix_text, write_matrix

    if args.out is None:
        sys.stdout.write(matrix_text(claim))
        return 0
    write_matrix(claim, args.out)
    print(f"wrote {args.out}; see what it would do: sweeper plan {args.out}", file=sys.stderr)
    return 0
