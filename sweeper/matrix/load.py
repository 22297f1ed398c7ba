"""A matrix file from disk to a validated `Matrix`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from sweeper.core.errors import BadFile
from sweeper.core.values import Matrix
from sweeper.matrix.build import Build
from sweeper.matrix.complaints import problems
from sweeper.matrix.models import MatrixFile
from sweeper.matrix.problems import BadMatrix
from sweeper.matrix.source import parse


def load_matrix(path: Path | str, *, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Matrix:
    """The matrix in `path`, its cells expanded and in run order, before feasibility.

    `${NAME:-default}` is filled from `environ` (default: this process's); relative folders count from `cwd` (default:
    the current directory). Raises BadMatrix (a BadFile) with every problem of the file, each at its line and key.
    """
    file = Path(path)
    document = parse(str(file), _bytes(file))
    context = {"environ": os.environ if environ is None else environ}
    try:
        model = MatrixFile.model_validate(document.data, context=context)
    except ValidationError as error:
        raise BadMatrix(str(file), problems(error, MatrixFile, document), hint=_HINT) from None
    build = Build(document=document, resolve=resolver(cwd or Path.cwd()))
    matrix = build.matrix(file.name.removesuffix(".yml").removesuffix(".yaml"), model)
    if matrix is None:
        raise BadMatrix(str(file), build.problems, hint=_HINT)
    return matrix


_HINT = "Keys and values: docs/matrix.md; check again with: sweeper plan FILE"


def resolver(cwd: Path) -> Callable[[str], str]:
    """Paths from `cwd`, absolute but with symbolic links kept: a virtual environment's python is one.

    What begins with `.`, `/` or `~`, or is a folder that exists, is a path; anything else is a hub id.
    """

    def resolve(written: str) -> str:
        if not (written.startswith((".", "/", "~")) or (cwd / written).is_dir()):
            return written
        return os.path.normpath(cwd / Path(written).expanduser())

    return resolve


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        beside = sorted(one.name for one in file.parent.glob("*.y*ml")) if file.parent.is_dir() else []
        near = difflib.get_close_matches(file.name, beside, n=1, cutoff=0.5)
        hint = f"Did you mean {file.parent / near[0]}?" if near else None
        raise BadFile(str(file), "no such file", hint=hint) from None
    except IsADirectoryError:
        raise BadFile(str(file), "a folder; a matrix is one YAML file") from None
    except OSError as error:
        raise BadFile(str(file), f"cannot be read: {error.strerror}") from None
