"""Screen, race, confirm: the scheduler of a sweep over verdicts of simulated launches."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import pytest

from sweeper.core.bounds import most_launches
from sweeper.core.identity import cell_id
from sweeper.core.points import DecodePoint, Quantiles
from sweeper.core.racing import confirmed
from sweeper.core.rank import rank
from sweeper.core.values import Cell, Expansion, Hardware, Matrix, PlannedCell, Policy, Workload
from sweeper.core.verdicts import Outcome, Phase, Verdict
from sweeper.schedule import scheduler, tables_of

NONE = Quantiles(mean=None, p50=None, p99=None)
Launch = Callable[[str, int], Verdict]
"""(cell's name, number of the launch from 1) -> verdict."""


def point(rate: float, concurrency: int = 1, osl: int = 512) -> DecodePoint:
    return DecodePoint(
        preset="sustained-decode", concurrency=concurrency, isl=128, osl=osl, decode_tok_s=rate,
        decode_tok_s_per_stream=rate, serving_tok_s=None, prefill_tok_s=None, ttft_ms=NONE, itl_ms=NONE,
        chunk_gap_ms=NONE, tokens=100, tokens_source="usage", window_s=5.0, acceptance=None, server_tok_s=None,
        client_cpu_s=None, client_bound=False,
    )  # fmt: skip


def verdict(*points: DecodePoint, outcome: Outcome = Outcome.PASS) -> Verdict:
    return Verdict(cell_id="x", trial="x-1", outcome=outcome, phase=Phase.MEASURE, points=points)


def sweep(names: Sequence[str], launch: Launch, **policy: object) -> tuple[list[str], Mapping[str, list[Verdict]]]:
    """Names in the order in which they were launched, and their verdicts. Fails when it does not end."""
    cells = {name: Cell(engine="command", model=name, name=name) for name in names}
    by_id = {cell_id(cell): name for name, cell in cells.items()}
    matrix = Matrix(
        name="m", path="m", cells=tuple(cells.values()), author_excluded=(), workloads=(Workload(),),
        policy=Policy(**policy), hardware=Hardware(),  # type: ignore[arg-type]
    )  # fmt: skip
    planned = tuple(PlannedCell(cell=cell, cell_id=cell_id(cell)) for cell in cells.values())
    following = scheduler(matrix, Expansion(cells=planned, excluded=()))
    done: dict[str, list[Verdict]] = {}
    order: list[str] = []
    while batch := following(done):
        for one in batch:
            name = by_id[one]
            order.append(name)
            done.setdefault(one, []).append(launch(name, len(done.get(one, ())) + 1))
        assert len(order) < 200, "the sweep does not end"
    return order, {by_id[one]: verdicts for one, verdicts in done.items()}


def rates(verdicts: Mapping[str, Sequence[Verdict]]) -> dict[str, list[float]]:
    return {
        name: [v.points[0].decode_tok_s or 0.0 for v in each if v.outcome is Outcome.PASS]
        for name, each in verdicts.items()
    }


def noisy(truth: Mapping[str, float], cv: float, seed: int) -> Launch:
    rng = random.Random(seed)
    return lambda name, number: verdict(point(truth[name] * (1 + rng.gauss(0, cv))))


TRUTH = {"slow": 50.0, "best": 100.0, "close": 98.5, "mid": 80.0, "dead": 10.0, "low": 60.0}


def test_all_are_screened_then_only_contenders_and_the_reference_interleaved_with_the_winner_measured_again() -> None:
    order, verdicts = sweep(list(TRUTH), noisy(TRUTH, 0.01, 3), launches=3, confirm_top=2, reference=(("name", "mid"),))
    assert order[:6] == list(TRUTH), "the order of the matrix"
    repeats = order[6:]
    assert set(repeats) == {"best", "close", "mid"}
    assert len(verdicts["best"]) >= 3, "the winner is measured again"
    assert len(order) <= 14
    assert repeats[3:6] == repeats[2::-1], "a round, then the same backwards"
    rows = rank(confirmed(rates(verdicts)), labels={}, workload="w", concurrency=1)
    assert [row.cell_id for row in rows[2:]] == ["mid", "low", "slow", "dead"]
    assert [row.place for row in rows] == [1, 1, 3, 4, 5, 6], "1.5 % is inside the noise: a tie"


def test_one_launch_asked_is_one_launch_given() -> None:
    assert sweep(list(TRUTH), noisy(TRUTH, 0.01, 1))[0] == list(TRUTH)


def test_a_leader_that_fails_when_it_is_confirmed_is_not_tried_again_and_the_race_goes_on() -> None:
    steady = noisy(TRUTH, 0.01, 1)

    def launch(name: str, number: int) -> Verdict:
        return verdict(outcome=Outcome.FAIL) if name == "best" and number > 1 else steady(name, number)

    order, verdicts = sweep(list(TRUTH), launch, launches=3, confirm_top=2)
    assert order.count("best") == 2
    assert len(rates(verdicts)["close"]) >= 3


@pytest.mark.parametrize(("spoiled", "launches"), [((2,), 4), ((2, 3), 3)])
def test_one_spoiled_window_does_not_cost_a_leader_its_confirmation(spoiled: tuple[int, ...], launches: int) -> None:
    steady = noisy(TRUTH, 0.01, 1)

    def launch(name: str, number: int) -> Verdict:
        lost = name == "best" and number in spoiled
        return verdict(point(1.0), outcome=Outcome.INCONCLUSIVE) if lost else steady(name, number)

    order, _ = sweep(list(TRUTH), launch, launches=3, confirm_top=2)
    assert order.count("best") == launches


def test_an_aborted_launch_is_made_again() -> None:
    order, _ = sweep(
        ["a", "b"], lambda name, n: verdict(outcome=Outcome.ABORTED) if (name, n) == ("a", 1) else verdict(point(5.0))
    )
    assert order == ["a", "b", "a"]


def test_the_sweep_ends_when_cells_are_never_measured_under_the_same_length() -> None:
    """A run whose window was too short is repeated with another output length: such points share no table."""

    def launch(name: str, number: int) -> Verdict:
        return verdict(point(100.0, osl=512 + number), point(50.0, concurrency=8, osl=ord(name)))

    order, _ = sweep(["a", "b", "c"], launch, launches=3, confirm_top=1)
    assert len(order) <= 9


def test_two_cells_that_stay_in_contention_get_every_launch_that_was_asked_for() -> None:
    equal = {"a": 100.0, "b": 100.0}
    order, _ = sweep(list(equal), noisy(equal, 0.02, 5), launches=5)
    assert (order.count("a"), order.count("b")) == (5, 5)


def test_two_workloads_that_ask_the_same_of_one_server_are_one_launch() -> None:
    tables = tables_of({"a": [verdict(point(100.0), point(110.0), point(7.0, concurrency=2))]})
    assert [table["a"] for table in tables.values()] == [[105.0], [7.0]]


def test_a_cell_that_leads_only_at_another_concurrency_is_confirmed_too() -> None:
    one, many = {"a": 100.0, "b": 50.0, "c": 20.0}, {"a": 300.0, "b": 900.0, "c": 200.0}
    order, _ = sweep(
        ["a", "b", "c"], lambda name, n: verdict(point(one[name]), point(many[name], concurrency=16)), launches=3
    )
    assert order.count("a") >= 3
    assert order.count("b") >= 3
    assert order.count("c") == 1


def test_equal_cells_seldom_get_a_sole_winner_through_the_whole_loop() -> None:
    wrong = 0
    for seed in range(150):
        names = {"a": 100.0, "b": 100.0, "c": 100.0, "d": 100.0}
        _, verdicts = sweep(list(names), noisy(names, 0.03, seed), launches=3, confirm_top=2)
        rows = rank(confirmed(rates(verdicts)), labels={}, workload="w", concurrency=1)
        wrong += not rows[0].tied and not rows[0].provisional
    assert wrong <= 8


@pytest.mark.parametrize("seed", range(60))
def test_no_sweep_makes_more_launches_than_its_plan_said(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"c{number}" for number in range(rng.randint(1, 12))]
    tables = rng.choice([1, 2, 4])
    late, unjudged = rng.choice([0.0, 0.4, 0.9]), rng.choice([0.0, 0.3])
    truth = {(name, table): rng.choice([100.0, rng.uniform(50, 120)]) for name in names for table in range(tables)}

    def launch(name: str, number: int) -> Verdict:
        if number > 1 and rng.random() < late:
            return verdict(outcome=Outcome.FAIL)
        if rng.random() < unjudged:
            return verdict(outcome=Outcome.INCONCLUSIVE)
        points = [point(truth[name, table] * rng.uniform(0.98, 1.02), table + 1) for table in range(tables)]
        return verdict(*points)

    policy = Policy(
        launches=rng.choice([1, 2, 3, 5]),
        confirm_top=rng.choice([0, 1, 4]),
        reference=rng.choice([(), (("name", "c0"),)]),
    )
    given = {"launches": policy.launches, "confirm_top": policy.confirm_top, "reference": policy.reference}
    order, _ = sweep(names, launch, **given)
    assert len(order) <= most_launches(len(names), policy)


def test_a_server_that_is_up_already_is_measured_once_for_its_windows_are_no_launches() -> None:
    cells = (Cell(engine="vllm", model="m", url="http://127.0.0.1:1"), Cell(engine="vllm", model="m"))
    ids = [cell_id(cell) for cell in cells]
    matrix = Matrix(
        name="m", path="m", cells=cells, author_excluded=(), workloads=(Workload(),), policy=Policy(launches=3),
        hardware=Hardware(),
    )  # fmt: skip
    planned = tuple(PlannedCell(cell=cell, cell_id=name) for name, cell in zip(ids, cells, strict=True))
    following = scheduler(matrix, Expansion(cells=planned, excluded=()))
    assert list(following({})) == ids
    assert list(following({name: [verdict(point(100.0))] for name in ids})) == [ids[1]]
