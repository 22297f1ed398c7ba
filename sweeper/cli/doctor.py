"""`sweeper doctor`: what this machine can run, and what stands in the way, each with the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from sweeper import machine


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="where runs are kept (default logs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    host = machine.facts(args.logs)
    if args.json:
        sys.stdout.write(json.dumps(machine.doctor_json(host), indent=1) + "\n")
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        sys.stdout.write(machine.doctor_text(host, colour=colour))
    return machine.exit_code(host)
