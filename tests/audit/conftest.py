"""Small wheels and folders: no compiler, no GPU, no download."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Make = Callable[..., Path]


@pytest.fixture
def wheel(tmp_path: Path) -> Make:
    """`wheel("name", {path: text or bytes}, stamp=YEAR)` writes name.whl."""

    def make(name: str, files: Mapping[str, str | bytes], *, stamp: int = 2024) -> Path:
        path = tmp_path / f"{name}.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for inner, content in files.items():
                archive.writestr(zipfile.ZipInfo(inner, date_time=(stamp, 1, 2, 3, 4, 6)), content)
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Make:
    """The same as a folder."""

    def make(name: str, files: Mapping[str, str | bytes]) -> Path:
        for inner, content in files.items():
            path = tmp_path / name / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return make
