"""The command line: find the command, parse, call, print errors in one line.

Command modules are imported only when asked for, so `sweeper bench` starts without loading Docker or statistics.
Each module under `sweeper.cli` has `configure(parser)` and `run(args) -> exit code`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from sweeper import __version__
from sweeper.core.errors import SweeperError

COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("sweeper.cli.plan", "expand a matrix, prune with reasons, print exact commands"),
    "doctor": ("sweeper.cli.doctor", "what this machine can run, and what stands in the way"),
    "run": ("sweeper.cli.run", "launch, check, measure and rank every cell of a matrix"),
    "status": ("sweeper.cli.status", "progress of a run"),
    "show": ("sweeper.cli.show", "everything about one trial"),
    "judge": ("sweeper.cli.judge", "judge a stored run again, with today's signatures"),
    "report": ("sweeper.cli.report", "ranking of a run: text, md, csv, json, html"),
    "compare": ("sweeper.cli.compare", "difference of two runs, with significance"),
    "diagnose": ("sweeper.cli.diagnose", "root cause of an engine log; no run needed"),
    "signatures": ("sweeper.cli.signatures", "list, show and test failure signatures"),
    "bench": ("sweeper.cli.bench", "measure a server that is already up"),
    "check": ("sweeper.cli.check", "numerics and text sanity of a server that is already up"),
    "canary": ("sweeper.cli.canary", "build a small checkpoint with golden vectors"),
    "accuracy": ("sweeper.cli.accuracy", "accuracy presets, and imported lm-eval or LiveBench results"),
    "claims": ("sweeper.cli.claims", "published figures against a run: met, not met, not comparable"),
    "bugreport": ("sweeper.cli.bugreport", "one archive a kernel engineer can run"),
    "reproduce": ("sweeper.cli.reproduce", "run somebody else's bug report"),
    "audit": ("sweeper.cli.audit", "does B change kernels, or only Python?"),
    "clean": ("sweeper.cli.clean", "remove what a crashed run left behind, by label"),
    "schema": ("sweeper.cli.schema", "JSON Schema of the matrix file, for editors"),
}

_SPACE = "Free some space; look with: df -h"
_RIGHTS = "This user may not; look with: id; ls -ld that path and the folders above it"
_OF_THE_MACHINE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "The file system is mounted read-only; look with: findmnt -T that path",
    errno.EMFILE: "Too many open files; look with: ulimit -n",
    errno.EIO: "The disk fails; look with: dmesg",
}
"""What no code of ours can mend, wherever it strikes."""


def entry() -> None:
    """Console script."""
    raise SystemExit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors of ours never reach the terminal as a traceback."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"sweeper {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        print(f"error: no command '{argv[0]}'" + (f"; did you mean '{near[0]}'?" if near else ""), file=sys.stderr)
        print("  All commands: sweeper --help", file=sys.stderr)
        return 2
    module_name, summary = COMMANDS[argv[0]]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"sweeper {argv[0]}", description=summary)
    module.configure(parser)
    try:
        return int(module.run(parser.parse_args(argv[1:])))
    except SweeperError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `sweeper report | head` closed the pipe: not an error, and the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        print(f"error: {error.filename or argv[0]}: {error.strerror}", file=sys.stderr)
        print(f"  {_OF_THE_MACHINE[error.errno]}", file=sys.stderr)
        return 3


def _overview() -> str:
    lines = [f"sweeper {__version__}: which MoE kernel backend is really fastest here", ""]
    lines += ["usage: sweeper COMMAND ...", "", "commands:"]
    lines += [f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join([*lines, "", "Help on one: sweeper COMMAND --help"])
