"""Which cells are launched next: one screening launch of all, then repeats for those that may still be the best.

`core.racing` decides; this module hands it what the verdicts so far say, table by table (workload and concurrency).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from sweeper.core.bounds import most_launches
from sweeper.core.matching import matches
from sweeper.core.racing import Race, next_launches_of_tables
from sweeper.core.values import Expansion, Matrix, Policy
from sweeper.core.verdicts import Outcome, Verdict
from sweeper.core.windows_point import source_flag

MAX_UNJUDGED = 1
Key = tuple[str, int, int | None, str | None]
Tables = dict[Key, dict[str, list[float]]]


def scheduler(matrix: Matrix, expansion: Expansion) -> Callable[[Mapping[str, Sequence[Verdict]]], Sequence[str]]:
    """Verdicts so far by cell id -> the next batch of cell ids; empty when the sweep is done."""
    order = [planned.cell_id for planned in expansion.cells]
    # A server that is up already is not started by us: measuring it again is another window, not another launch.
    attached = {planned.cell_id for planned in expansion.cells if planned.cell.url is not None}
    policy = matrix.policy
    race = Race(launches=policy.launches, confirm_top=policy.confirm_top, reference=reference_of(matrix, expansion))

    def following(done: Mapping[str, Sequence[Verdict]]) -> Sequence[str]:
        tried = {cell_id: [v for v in done.get(cell_id, ()) if v.outcome is not Outcome.ABORTED] for cell_id in order}
        unseen = [cell_id for cell_id in order if not tried[cell_id]]
        if unseen or (policy.launches < 2 and not policy.confirm_top):
            return unseen
        passed = [c for c in order if c not in attached and _still_raced(tried[c])]
        # The tables see launches that gave a rate; what gave none has cost as much.
        if sum(len(tried[c]) for c in passed) >= race.limit(len(passed)):
            return ()
        tables = tables_of({cell_id: tried[cell_id] for cell_id in passed})
        wanted = next_launches_of_tables(list(tables.values()), order=passed, race=race)
        return wanted[: max(0, _left(tried, policy))]

    return following


def _left(tried: Mapping[str, Sequence[Verdict]], policy: Policy) -> int:
    """Launches until the number that `plan` promises as the most; late failures and many tables could pass it."""
    launched = [trials for trials in tried.values() if all(verdict.outcome is not Outcome.SKIP for verdict in trials)]
    return most_launches(len(launched), policy) - sum(map(len, launched))


def _still_raced(trials: Sequence[Verdict]) -> bool:
    """Passed at least once and never failed. One launch that could not be judged (a spoiled window) costs no cell."""
    outcomes = [verdict.outcome for verdict in trials]
    unjudged = outcomes.count(Outcome.INCONCLUSIVE)
    passes = outcomes.count(Outcome.PASS)
    return passes > 0 and unjudged <= MAX_UNJUDGED and passes + unjudged == len(outcomes)


def reference_of(matrix: Matrix, expansion: Expansion) -> str | None:
    """The cell that the policy names as the reference; None where it names none that runs."""
    terms = matrix.policy.reference
    if not terms:
        return None
    return next((item.cell_id for item in expansion.cells if matches(item.cell, terms)), None)


def tables_of(verdicts: Mapping[str, Sequence[Verdict]]) -> Tables:
    """Rates per launch: (preset, concurrency, OSL, how tokens were counted if not exactly) -> cell id -> one rate per
    launch that passed, in order.
    """
    tables: Tables = {}
    for cell_id, trials in verdicts.items():
        for verdict in trials:
            if verdict.outcome is not Outcome.PASS:
                continue
            for key, rates in _rates(verdict).items():
                tables.setdefault(key, {}).setdefault(cell_id, []).append(fmean(rates))
    return tables


def _rates(verdict: Verdict) -> dict[Key, list[float]]:
    """Several where two workloads ask the same of one server."""
    rates: dict[Key, list[float]] = {}
    for point in verdict.sound:
        if point.tok_s is not None:
            key = (point.preset, point.concurrency, point.osl, source_flag(point.tokens_source))
            rates.setdefault(key, []).append(point.tok_s)
    return rates
