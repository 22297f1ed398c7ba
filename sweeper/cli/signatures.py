"""`sweeper signatures`: list, show and test what `diagnose` knows."""

from __future__ import annotations

import argparse
import json
import sys

from sweeper.core.errors import UsageError
from sweeper.diagnosis.proofs import check_proofs
from sweeper.diagnosis.signature import Signature, load_signatures


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "test"))
    parser.add_argument("id", nargs="*", help="cause ids; none means all")
    parser.add_argument(
        "--signatures", action="append", default=[], metavar="DIR", help="a folder of signatures of your own"
    )
    parser.add_argument("--json", action="store_true", help="list and show as one JSON list")


def run(args: argparse.Namespace) -> int:
    """0; 1 where a proof fails."""
    known = load_signatures(args.signatures)
    missing = set(args.id) - {entry.id for entry in known}
    if missing:
        raise UsageError(f"no signature with id {', '.join(sorted(missing))}", hint="All ids: sweeper signatures list")
    chosen = [entry for entry in known if not args.id or entry.id in args.id]
    if args.action == "test":
        return _test(chosen, known)
    if args.json:
        print(json.dumps([entry.model_dump(mode="json", by_alias=True) for entry in chosen], ensure_ascii=False))
    elif args.action == "list":
        _list(chosen)
    else:
        print("\n\n".join(_shown(entry) for entry in chosen))
    return 0


def _list(entries: list[Signature]) -> None:
    grouped: dict[str, list[Signature]] = {}
    for entry in entries:
        grouped.setdefault(entry.id, []).append(entry)
    for name, group in grouped.items():
        engines = ",".join(dict.fromkeys(engine for entry in group for engine in entry.engines))
        print(f"{name:<40} {group[0].severity:<9} {len(group):>2} wording{' ' if len(group) == 1 else 's'}  {engines}")


def _shown(entry: Signature) -> str:
    rows = [
        f"{entry.id}  ({entry.severity}, {entry.rank}; {', '.join(entry.engines)})",
        f"  file   {entry.path}:{entry.line}",
    ]
    rows += [f"  line   contains {literal!r}" for literal in entry.contains]
    rows += [f"  line   or       {literal!r}" for literal in entry.any_of]
    rows += [f"  means  {entry.means}", f"  try    {entry.try_}", f"  known  {entry.source}"]
    return "\n".join(rows)


def _test(chosen: list[Signature], known: tuple[Signature, ...]) -> int:
    failures = [failure for entry in chosen for failure in check_proofs(entry, known)]
    for failure in failures:
        print(failure)
    proofs = sum(len(entry.examples.match) + len(entry.examples.no_match) for entry in chosen)
    print(f"{proofs} proofs of {len(chosen)} entries, {len(failures)} failed", file=sys.stderr)
    return 1 if failures else 0
