"""A file that should hold one JSON object, read for a person who may have named the wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeper.core.errors import BadFile


def read_text(path: Path) -> str:
    """Raises BadFile for what cannot be read as UTF-8."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise BadFile(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadFile(str(path), f"not UTF-8 text: byte {error.start}") from None


def parse_object(path: Path, text: str) -> dict[str, Any]:
    """Raises BadFile with the line for anything but one JSON object."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(str(path), f"not JSON: {error}", line=getattr(error, "lineno", None)) from None
    if not isinstance(content, dict):
        raise BadFile(str(path), "not a JSON object")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Both of the above."""
    return parse_object(path, read_text(path))
