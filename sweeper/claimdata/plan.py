"""Writes the matrix that would test a claim, as a commented YAML file, and proves that it loads."""

from __future__ import annotations

import textwrap
from pathlib import Path

import yaml

from sweeper.boards import board
from sweeper.core.claims import Claim
from sweeper.core.claims_plan import plan
from sweeper.core.errors import UsageError
from sweeper.matrix.load import load_matrix


def matrix_text(claim: Claim) -> str:
    """The file's text: what is tested, what was assumed, what the matrix cannot set, then its keys."""
    made = plan(claim, board(claim.conditions.gpu))
    source = claim.source
    head = [f"Tests the claim {claim.id}: {claim.text()}, {claim.kind}. {claim.row}".strip()]
    head.append(f"Source: {source.title} ({source.where}{', ' + source.date if source.date else ''}).")
    if claim.note:
        head.append(f"Note: {claim.note}.")
    if claim.retracted:
        head.append(f"Retracted: {claim.retracted}.")
    head += _listed("Not stated by the source, so taken here:", made.assumed)
    head += _listed("To be set by hand, a matrix cannot:", made.by_hand)
    head += [f"Then: sweeper run THIS-FILE, and: sweeper claims check last --id '{claim.id}*'"]
    comment = "\n".join(
        textwrap.fill(line, 110, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False) for line in head
    )
    body = yaml.safe_dump(made.matrix, sort_keys=False, allow_unicode=True, width=110)
    return f"# yaml-language-server: $schema=matrix.schema.json\n#\n{comment}\n{body}"


def _listed(title: str, items: tuple[str, ...]) -> list[str]:
    return [title, *(f"- {item}" for item in items)] if items else []


def write_matrix(claim: Claim, file: Path) -> None:
    """Raises UsageError when the file is there already or cannot be written."""
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(matrix_text(claim))
    except FileExistsError:
        raise UsageError(f"{file} is there already", hint="Choose another --out, or remove it") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    load_matrix(file)
