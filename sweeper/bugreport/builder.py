"""The canary builder as one file for any Python with torch and transformers: `python canary-builder.pyz build ...`."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

NAME = "canary-builder.pyz"
_PARTS = ("canary", "core")
_FILES = ("__init__.py", "catalogue.py", "jsonfile.py", "cli/__init__.py", "cli/argtypes.py", "cli/canary.py")
_DATA = (".txt", ".json", ".jinja")
_MAIN = """import argparse
import atexit
import shutil
import sys
import tempfile
import zipfile

# The builder reads data files beside its modules, so they must lie in a folder.
folder = tempfile.mkdtemp(prefix="canary-builder-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
zipfile.ZipFile(sys.argv[0]).extractall(folder)
sys.path[0] = folder

from sweeper.cli import canary
from sweeper.core.errors import SweeperError

parser = argparse.ArgumentParser(prog="canary-builder")
canary.configure(parser)
try:
    code = canary.run(parser.parse_args())
except SweeperError as error:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    code = error.exit_code
raise SystemExit(code)
"""
_STAMP = (1980, 1, 1, 0, 0, 0)


def pack() -> bytes:
    """The file's bytes, the same for the same version of sweeper. It needs pydantic, numpy, torch and transformers."""
    root = Path(__file__).parent.parent
    names = [root / name for name in _FILES]
    for part in _PARTS:
        names += sorted((root / part).rglob("*.py"))
        names += sorted(path for path in (root / part).glob("*") if path.suffix in _DATA)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for path in names:
            _add(archive, f"sweeper/{path.relative_to(root).as_posix()}", path.read_bytes())
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_STAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)
