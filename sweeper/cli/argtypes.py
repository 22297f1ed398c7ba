"""Argument types that several commands share."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a whole number from 1: {text}")
    return int(text)


def server_url(text: str) -> str:
    """The base URL of a server, with its scheme."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"not the base URL of a server, such as http://127.0.0.1:8000: '{text}'")
    return text
