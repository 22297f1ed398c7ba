"""Claims against a run: adds geometry and GPU constants to the pure judgement, and writes it as JSON and as text."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from sweeper.boards import board
from sweeper.checkpoint import model_geometry
from sweeper.claimdata.figures import canonical_model
from sweeper.core.claims import NAMES, Claim, ClaimResult, ClaimVerdict, Figure
from sweeper.core.claims_compare import words
from sweeper.core.claims_distribution import Distribution, distribution
from sweeper.core.claims_judge import check
from sweeper.core.claims_limits import Limit, limit


def limit_of(claim: Claim) -> Limit | None:
    """What physics says about the claim; None where model or GPU is not known."""
    model, gpu = claim.conditions.model, claim.conditions.gpu
    return limit(claim, model_geometry(model) if model else None, board(gpu))


def check_all(claims: Sequence[Claim], figures: Sequence[Figure]) -> tuple[ClaimResult, ...]:
    """One result per claim, in the order of the claims."""
    return tuple(check(_named_alike(claim), figures, limit_of(claim)) for claim in claims)


def distributions(claims: Sequence[Claim], figures: Sequence[Figure]) -> tuple[Distribution, ...]:
    """Per measured figure all claims for its setting; figures without any are left out."""
    alike = [_named_alike(claim) for claim in claims]
    found = (distribution(figure, [claim for claim in alike if not _broken(claim)]) for figure in figures)
    return tuple(one for one in found if one is not None)


def _broken(claim: Claim) -> bool:
    found = limit_of(claim)
    return found is not None and found.broken is not None


def _named_alike(claim: Claim) -> Claim:
    return replace(claim, conditions=replace(claim.conditions, model=canonical_model(claim.conditions.model)))


def exit_code(results: Sequence[ClaimResult]) -> int:
    """1 when a claim was measured under its conditions and does not hold; without a figure of ours none counts."""
    wrong = (ClaimVerdict.NOT_MET, ClaimVerdict.IMPLAUSIBLE, ClaimVerdict.MISLABELLED)
    return int(any(result.verdict in wrong and result.reading is not None for result in results))


def as_json(results: Sequence[ClaimResult], spread: Sequence[Distribution]) -> list[dict[str, Any]]:
    """DESIGN: a list of `{"id", "verdict", "why", "measured"|null, "claimed"}`, with further keys."""
    return [_result_json(result, spread) for result in results]


def _result_json(result: ClaimResult, spread: Sequence[Distribution]) -> dict[str, Any]:
    claim, reading = result.claim, result.reading
    interval = reading.interval if reading else None
    beside = next((one for one in spread if one.figure is result.figure), None) if claim.kind == "output" else None
    return {
        "id": claim.id,
        "verdict": result.verdict.value,
        "why": result.why,
        "measured": reading.value if reading else None,
        "claimed": claim.claimed(),
        "interval": [interval.low, interval.high] if interval else None,
        "launches": reading.launches if reading else None,
        "kind": claim.kind,
        "unit": claim.unit,
        "cell": result.figure.cell_id if result.figure else None,
        "difference": result.difference,
        "ask": list(result.ask),
        "caveats": list(result.caveats),
        "retracted": claim.retracted,
        "reading_of": claim.reading_of,
        "others": _beside_json(beside) if beside and reading else None,
    }


def _beside_json(one: Distribution) -> dict[str, Any]:
    return {
        "claims": len(one.claims),
        "lowest": one.claims[0].low,
        "median": one.middle(),
        "highest": one.claims[-1].high,
        "below_ours": one.below(),
        "ids": [claim.id for claim in one.claims],
    }


ORDER = (
    ClaimVerdict.MET,
    ClaimVerdict.NOT_MET,
    ClaimVerdict.ABOVE,
    ClaimVerdict.BELOW,
    ClaimVerdict.MISLABELLED,
    ClaimVerdict.IMPLAUSIBLE,
    ClaimVerdict.UNKNOWN,
    ClaimVerdict.NOT_MEASURED,
    ClaimVerdict.NOT_COMPARABLE,
)


NARROWEST = 40
"""Columns for a reason beside its claim; with fewer it stands below it."""


def as_text(
    results: Sequence[ClaimResult], spread: Sequence[Distribution], *, everything: bool = False, width: int = 120
) -> str:
    """A block per verdict; claims about other models or GPUs are counted, not listed, unless `everything`."""
    far = [one for one in results if not everything and _elsewhere(one)]
    near = [one for one in results if one not in far]
    lines: list[str] = []
    for verdict in ORDER:
        rows = [_row(one) for one in near if one.verdict is verdict]
        if rows:
            lines += [verdict.value.upper(), textwrap.indent(_table(rows, width - 2), "  "), ""]
    for group in _grouped(spread):
        lines += _beside(group)
    counts = Counter(one.verdict.value for one in near)
    lines.append(
        ", ".join(f"{count} {name}" for name, count in counts.items()) or "no claim is about this model and GPU"
    )
    if far:
        reasons = Counter(words(one.difference or "conditions") for one in far)
        told = ", ".join(f"{count} by {name}" for name, count in reasons.most_common())
        lines.append(f"{len(far)} more are about something else ({told}); all of them: --all")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Sequence[str]], width: int) -> str:
    """Claim, claimed, measured and why, as wide as the terminal."""
    headers = ["claim", "claimed", "measured", "why"]
    # tabulate keeps two blanks behind a header's word and two between columns.
    wide = [max(len(headers[at]) + 2, *(len(row[at]) for row in rows)) for at in range(3)]
    left = width - sum(wide) - 2 * len(wide)
    if left >= NARROWEST:
        return _plain([[*row[:3], textwrap.fill(row[3], left)] for row in rows], headers)
    told = _plain([row[:3] for row in rows], headers[:3]).split("\n")
    below = [textwrap.indent(textwrap.fill(row[3], width - 4), "    ") for row in rows]
    return "\n".join([*told[:2], *(line for pair in zip(told[2:], below, strict=True) for line in pair)])


def _plain(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers=headers, disable_numparse=True)


_SETTING = ("model", "quantization", "gpu", "gpus")


def _elsewhere(result: ClaimResult) -> bool:
    if result.verdict in (ClaimVerdict.IMPLAUSIBLE, ClaimVerdict.MISLABELLED):
        return result.difference == "model"
    return result.verdict is ClaimVerdict.NOT_COMPARABLE and result.difference in _SETTING


def _row(result: ClaimResult) -> list[str]:
    reading, claim = result.reading, result.claim
    measured = "-"
    if reading is not None:
        spread = f" [{reading.interval.low:.4g}, {reading.interval.high:.4g}]" if reading.interval else ""
        measured = f"{reading.value:.4g}{spread}"
    name = claim.text() + ("" if claim.kind == "output" else f" {claim.kind}")
    why = result.why
    if result.verdict is ClaimVerdict.NOT_COMPARABLE and result.figure:
        why = why.replace(f" (closest: {result.figure.label})", "")
    return [claim.id, name, measured, why]


def _beside(group: Sequence[Distribution]) -> list[str]:
    """One block for all our figures of one setting: published ones and ours in one order."""
    claims = group[0].claims
    ours = [(one.ours.value, "#", f"{one.ours.value:.4g} tok/s", f"ours: {one.figure.label}") for one in group]
    rows = [((claim.low + claim.high) / 2, "=", claim.text(), claim.id) for claim in claims] + ours
    most = max(value for value, *_ in rows)
    c = group[0].figure.conditions
    drafts = "no speculation" if c.speculative == "none" else f"{c.speculative} {c.draft_tokens}"
    setting = f"{c.model}, {c.quantization}, {c.gpus}x {c.gpu}, {drafts}, concurrency {c.concurrency}"
    numbers = f"{len(claims)}, {claims[0].low:g} to {claims[-1].high:g} tok/s, median {group[0].middle():g}"
    head = f"Published for {setting}, any engine: {numbers}"
    told = [
        f"  {mark * max(1, round(30 * value / most)):<30}  {text:<14} {name}"
        for value, mark, text, name in sorted(rows)
    ]
    below = [f"  {one.below()} of {len(claims)} are below {one.figure.label}" for one in group]
    return [*textwrap.wrap(head, 110), *told, *below, ""]


def _grouped(spread: Sequence[Distribution]) -> list[list[Distribution]]:
    groups: dict[tuple[str, ...], list[Distribution]] = {}
    for one in spread:
        groups.setdefault(tuple(claim.id for claim in one.claims), []).append(one)
    return list(groups.values())


def list_json(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """One object per claim: value, kind, unit, conditions that are stated, unknown ones, source."""
    return [_claim_json(claim) for claim in claims]


def _claim_json(claim: Claim) -> dict[str, Any]:
    stated = {name: getattr(claim.conditions, name) for name in NAMES}
    source = claim.source
    return {
        "id": claim.id,
        "table": claim.table,
        "row": claim.row,
        "claimed": claim.claimed(),
        "spread": claim.spread,
        "kind": claim.kind,
        "unit": claim.unit,
        "bound": claim.bound,
        "promised": claim.promised,
        "conditions": {name: value for name, value in stated.items() if value is not None},
        "unknown": list(claim.unknown),
        "source": {"title": source.title, "where": source.where, "date": source.date, "who": source.who},
        "note": claim.note,
        "retracted": claim.retracted,
        "reading_of": claim.reading_of,
    }


def list_text(claims: Sequence[Claim], width: int = 120) -> str:
    """A block per table, one line a claim."""
    lines: list[str] = []
    for table in dict.fromkeys(claim.table for claim in claims):
        of_table = [claim for claim in claims if claim.table == table]
        dates = sorted({claim.source.date for claim in of_table if claim.source.date})
        counted = f"{sum(claim.reading_of is None for claim in of_table)} figures; {', '.join(dates) or '-'}"
        lines += textwrap.wrap(f"{table} ({counted})", width)
        rows = [[claim.id, claim.text(), claim.kind] for claim in of_table]
        left = width - 2 - sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
        for row, claim in zip(rows, of_table, strict=True):
            row.append(textwrap.fill(_short(claim), max(left, NARROWEST // 2)))
        lines += [textwrap.indent(tabulate(rows, tablefmt="plain", disable_numparse=True), "  "), ""]
    return "\n".join(lines)


def _short(claim: Claim) -> str:
    """`retracted` and the row it stands for; a reading says how it is read."""
    words_ = [claim.row if claim.reading_of is None else f"{claim.row}, read: {claim.note}"]
    if claim.retracted:
        words_.insert(0, "retracted")
    return "; ".join(word for word in words_ if word)
