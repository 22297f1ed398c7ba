"""Ctrl-C ends a run with exit code 130, whatever the interpreter was doing at that moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import sys
from sweeper import app
try:
    with app.interruptible():
        {moment}
except KeyboardInterrupt:
    sys.exit(130)
sys.exit("no interrupt arrived")
"""
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


def exit_code(folder: Path, moment: str) -> int:
    # As a module, like `python -m sweeper`: with `-c` the interpreter leaves by another way.
    (folder / "child.py").write_text(CHILD.format(moment=moment))
    argv = [sys.executable, "-m", "child"]
    return subprocess.run(argv, cwd=folder, timeout=60, check=False).returncode


def test_an_interrupt_inside_generated_code_still_ends_with_130(tmp_path: Path) -> None:
    # The making of a dataclass runs text; CPython then ended the process by SIGINT although we caught the exception.
    assert exit_code(tmp_path, f"exec({KILL!r})") == 130


def test_an_interrupt_elsewhere_ends_with_130(tmp_path: Path) -> None:
    assert exit_code(tmp_path, KILL) == 130


def test_an_interrupt_that_a_destructor_swallowed_is_followed_by_one_that_counts(tmp_path: Path) -> None:
    # The interpreter reports and drops what a __del__ raises: nothing has begun to stop, so the next one must.
    moment = f"type('D', (), {{'__del__': lambda self: exec({KILL!r})}})(); {KILL}"
    assert exit_code(tmp_path, moment) == 130


def test_further_interrupts_do_not_break_the_stop(tmp_path: Path) -> None:
    stop = f"[{KILL.partition('; ')[2]}, {KILL.partition('; ')[2]}, open('stopped', 'w').close()]"
    moment = f"""import os, signal
        try:
            {KILL}
        finally:
            {stop}"""
    assert exit_code(tmp_path, moment) == 130
    assert (tmp_path / "stopped").exists()
