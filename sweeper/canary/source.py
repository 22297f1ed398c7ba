"""`--like`: a config.json, a model folder, a name of the included catalogue, `tiny` or `speaking`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeper import catalogue
from sweeper.canary import cut
from sweeper.canary.speaking import speaking_dir
from sweeper.core.errors import UsageError
from sweeper.jsonfile import read_object


def resolve(like: str) -> tuple[dict[str, Any], Path | None]:
    """(config, folder that holds its weights or None). Raises BadFile or UsageError naming what was looked for."""
    if like == "tiny":
        return dict(cut.TINY), None
    if like == "speaking":
        return read_object(speaking_dir() / "config.json"), speaking_dir()
    path = Path(like)
    if path.is_dir():
        return read_object(path / "config.json"), path if any(path.glob("*.safetensors")) else None
    if path.is_file():
        return read_object(path), None
    return _from_catalogue(like), None


def names() -> list[str]:
    """Names that `resolve` takes beside paths: those of the catalogue whose model type the builder knows."""
    return ["tiny", "speaking", *(name for name in catalogue.names() if _buildable(catalogue.config(name)))]


def _buildable(config: dict[str, Any]) -> bool:
    try:
        cut.text_config(config)
    except UsageError:
        return False
    return True


def _from_catalogue(name: str) -> dict[str, Any]:
    found = catalogue.find(name)
    if found is not None:
        return catalogue.config(found)
    import difflib

    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise UsageError(
        f"--like {name}: no such file, folder or catalogue name", hint=f"{hint}All names: sweeper canary list"
    )
