"""Launch means of several cells to places.

A leader (highest mean) is compared with every cell below it, Holm over these pairs; the cells it is not separated from
share its place. The next leader is the best of the rest, and so on. With one launch no spread is known: then the noise
threshold alone separates, and the row is provisional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sweeper.core.stats import NOISE, Comparison, compare, describe, differs, holm, launches_to_separate
from sweeper.core.verdicts import RankedRow


def rank(
    samples: Mapping[str, Sequence[float]],
    *,
    labels: Mapping[str, str],
    workload: str,
    concurrency: int,
    noise: float = NOISE,
) -> tuple[RankedRow, ...]:
    """Rows by place, then by mean. `samples`: cell id to one mean rate per launch (tok/s).

    Cells without a launch are left out. `ratio_interval` is the unadjusted 95 % Welch interval against the best;
    places use the Holm-adjusted test, so an interval that barely excludes 1 may still be a tie.
    """
    known = {cell: tuple(values) for cell, values in samples.items() if values}
    rest: Sequence[str] = sorted(known, key=lambda cell: (-sum(known[cell]) / len(known[cell]), cell))
    best = known[rest[0]] if rest else ()
    rows: list[RankedRow] = []
    while rest:
        place = len(rows) + 1
        group, rest = _group(rest, known, noise)
        for cell in group:
            row = _row(cell, known[cell], best=best, place=place, tied=len(group) > 1, noise=noise)
            rows.append(replace(row, label=labels.get(cell, cell), workload=workload, concurrency=concurrency))
    return tuple(rows)


def separated_from(
    leader: Sequence[float], others: Sequence[Sequence[float]], *, noise: float = NOISE
) -> tuple[bool, ...]:
    """For each of `others`: does the evidence separate it from the leader? Holm over the pairs that have a p."""
    comparisons = [compare(other, leader) for other in others]
    tested = [i for i, c in enumerate(comparisons) if c.p is not None]
    adjusted = dict(zip(tested, holm([_p(comparisons[i]) for i in tested]), strict=True))
    return tuple(differs(c, noise=noise, p=adjusted.get(i)) for i, c in enumerate(comparisons))


def _p(comparison: Comparison) -> float:
    return 1.0 if comparison.p is None else comparison.p


def _group(
    rest: Sequence[str], known: Mapping[str, Sequence[float]], noise: float
) -> tuple[Sequence[str], Sequence[str]]:
    leader, others = rest[0], rest[1:]
    split = separated_from(known[leader], [known[cell] for cell in others], noise=noise)
    shared = [cell for cell, apart in zip(others, split, strict=True) if not apart]
    return [leader, *shared], [cell for cell, apart in zip(others, split, strict=True) if apart]


def _row(
    cell: str, launches: Sequence[float], *, best: Sequence[float], place: int, tied: bool, noise: float
) -> RankedRow:
    summary, against = describe(launches), compare(launches, best)
    is_best = launches is best
    unsettled = place == 1 and tied and not is_best
    return RankedRow(
        place=place,
        tied=tied,
        provisional=summary.n < 2,
        cell_id=cell,
        label=cell,
        decode_tok_s=summary.mean,
        interval=summary.interval,
        launches=summary.n,
        ratio_to_best=against.ratio,
        ratio_interval=None if is_best else against.interval,
        needs_launches=launches_to_separate(launches, best, noise=noise) if unsettled else None,
    )
