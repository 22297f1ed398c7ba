"""Axes to cells, run order, labels, rules, selection."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from itertools import product as every

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.core.bounds import AROUND_S, BUILD_S, launch_bound_s, time_bound
from sweeper.core.errors import UsageError
from sweeper.core.expand import (
    cell_of,
    distinct_labels,
    expand,
    merged,
    overlay,
    product,
    run_order,
    select,
    started_by,
)
from sweeper.core.identity import cell_id
from sweeper.core.matching import matches, parse
from sweeper.core.racing import Race
from sweeper.core.values import (
    Cell,
    Deadlines,
    Expansion,
    Hardware,
    Matrix,
    Parallelism,
    Policy,
    Speculative,
    Workload,
)

BASE = Cell(engine="vllm", model="org/m")


def matrix(*cells: Cell, hardware: Hardware | None = None, excluded: tuple[tuple[Cell, str], ...] = ()) -> Matrix:
    return Matrix(
        name="m",
        path="m.yaml",
        cells=cells,
        author_excluded=excluded,
        workloads=(Workload(),),
        policy=Policy(),
        hardware=hardware or Hardware(),
    )


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(), min_size=1, max_size=4, unique=True), max_size=4))
def test_the_product_has_every_combination_once_and_the_first_axis_is_slowest(axes: list[list[int]]) -> None:
    points = [[{f"axis{number}": value} for value in values] for number, values in enumerate(axes)]
    found = [tuple(point[f"axis{n}"] for n in range(len(axes))) for point in product({}, points)]
    assert found == list(every(*axes))


def test_no_axes_give_the_fixed_cell() -> None:
    assert list(product({"engine": "vllm"}, [])) == [{"engine": "vllm"}]


def test_environments_are_united_arguments_appended_and_the_rest_replaced() -> None:
    below = {"env": (("A", "1"), ("B", "2")), "extra_args": ("--x",), "moe_backend": "auto"}
    above = {"env": (("B", "3"), ("A", None)), "extra_args": ("--y",), "moe_backend": "triton"}
    cell = cell_of({"engine": "vllm", "model": "m", **overlay(below, above)})
    assert (cell.env, cell.extra_args, cell.moe_backend) == ((("B", "3"),), ("--x", "--y"), "triton")


def test_equal_cells_are_one_and_keep_the_name() -> None:
    (cell,) = merged([BASE, replace(BASE, name="row 1"), replace(BASE, name="row 2")])
    assert cell.name == "row 1"


def test_cells_of_one_image_and_model_stay_together() -> None:
    cells = [replace(BASE, image=image, model=model) for image, model in ("ax", "bx", "ay", "ax")]
    order = [(cell.image, cell.model) for cell in run_order(cells)]
    assert order == [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")]


MANY = [replace(BASE, image=f"i{i}", max_model_len=n) for i in range(3) for n in range(1, 6)]


@settings(deadline=None)
@given(st.integers(), st.permutations(MANY))
def test_a_seed_decides_the_order_whatever_order_was_written_and_keeps_images_together(
    seed: int, cells: list[Cell]
) -> None:
    order = run_order(cells, seed)
    assert order == run_order(MANY, seed)
    images = [cell.image for cell in order]
    assert len([1 for before, after in pairwise(images) if before != after]) == 2


def test_seeds_differ() -> None:
    assert len({run_order(MANY, seed) for seed in range(5)}) > 1


@settings(deadline=None)
@given(st.lists(st.sampled_from(MANY), unique=True, min_size=1))
def test_no_two_cells_have_one_label(cells: list[Cell]) -> None:
    labels = [cell.label() for cell in distinct_labels(cells)]
    assert len(set(labels)) == len(cells)


def test_a_label_says_what_tells_cells_apart_and_nothing_else() -> None:
    pair = [replace(BASE, env=(("SAME", "1"),)), replace(BASE, env=(("NOBIND", "1"), ("SAME", "1")))]
    assert [cell.label() for cell in distinct_labels(pair)] == ["vllm auto tp1", "vllm auto tp1 NOBIND=1"]
    images = [replace(BASE, image="reg/vllm:1"), replace(BASE, image="reg/vllm:2")]
    assert [cell.label() for cell in distinct_labels(images)] == ["vllm auto tp1 vllm:1", "vllm auto tp1 vllm:2"]


def test_models_of_one_folder_name_are_still_told_apart() -> None:
    pair = distinct_labels([replace(BASE, model="/a/fp8"), replace(BASE, model="/b/fp8")])
    assert pair[0].label() != pair[1].label()


def test_a_rule_excludes_and_the_author_excludes_and_both_say_why() -> None:
    big = replace(BASE, parallelism=Parallelism(tp=4))
    given_up = replace(BASE, moe_backend="marlin")
    whole = expand(matrix(BASE, big, hardware=Hardware(count=2, sm="9.0"), excluded=((given_up, "slow"),)))
    assert [item.cell for item in whole.cells] == [BASE]
    why = {item.cell_id: item.reasons for item in whole.excluded}
    assert why[cell_id(given_up)] == ("excluded by the matrix: slow",)
    assert "needs 4 GPUs" in why[cell_id(big)][0]


def test_hardware_handed_over_counts_instead_of_the_matrix_s_own() -> None:
    big = replace(BASE, parallelism=Parallelism(tp=4))
    assert expand(matrix(big, hardware=Hardware(count=2)), Hardware(count=4)).cells


CELLS = [
    replace(BASE, moe_backend=backend, parallelism=Parallelism(tp=tp), speculative=spec)
    for backend in ("auto", "cutlass", "flashinfer_cutlass")
    for tp in (1, 2)
    for spec in (None, Speculative(method="mtp", tokens=2))
]
WHOLE: Expansion = expand(matrix(*CELLS))


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ("moe_backend=cutlass", 4),
        ("moe_backend=*cutlass", 8),
        ("moe_backend=FlashInfer-CUTLASS", 4),
        ("backend=auto|cutlass,tp=2", 4),
        ("parallelism.tp=1,spec=none", 3),
        ("speculative=mtp2", 6),
        ("mtp=2", 6),
        ("mtp=0,tp=2", 3),
        ("engine=vllm", 12),
        ("vllm auto tp1", 1),
        ("*tp1*", 6),
        ("vllm auto tp1, vllm auto tp2", 2),
        ("env.SET=none", 12),
        ("", 12),
    ],
)
def test_only_selects_by_terms_labels_and_patterns(only: str, count: int) -> None:
    chosen = select(WHOLE, only)
    assert len(chosen.cells) + len(chosen.excluded) == count


def test_only_takes_the_beginning_of_an_id() -> None:
    wanted = WHOLE.cells[3].cell_id
    assert [item.cell_id for item in select(WHOLE, wanted[:8]).cells] == [wanted]


def test_only_with_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'moe_backend'"):
        select(WHOLE, "moe_backnd=auto")


def test_only_that_selects_nothing_lists_the_cells() -> None:
    with pytest.raises(UsageError) as error:
        select(WHOLE, "tp=8")
    assert "vllm auto tp1" in (error.value.hint or "")


def test_an_equals_sign_in_a_label_is_no_term() -> None:
    assert parse("vllm auto tp2 NOBIND=1") == ((), ("vllm auto tp2 NOBIND=1",))
    assert parse("a b, tp=1") == ((("tp", "1"),), ("a b",))


def test_terms_match_variables_and_arguments() -> None:
    cell = replace(BASE, env=(("A", "x1"),), extra_args=("--eager",))
    assert matches(cell, (("env.A", "x*"), ("extra_args", "*eager*")))
    assert not matches(cell, (("env.B", "x*"),))
    assert matches(cell, ())


def test_the_time_bound_adds_every_deadline_of_every_launch() -> None:
    limits = Deadlines(
        pull_s=100, ready_s=10, first_answer_s=5, canary_s=7, sanity_s=3, measure_s=20, stop_s=2, gpu_free_s=1
    )
    work = (Workload(concurrency=(1, 2)), Workload(name="b"))
    # Ready, two answers, prompts and fixed texts, golden vectors, three points, stop, memory free, and the rest.
    one = 10 + 5 + 2 * 3 + 7 + 3 * 20 + 2 + 1 + AROUND_S
    assert launch_bound_s(Policy(deadlines=limits), work, on_gpu=True) == one
    assert launch_bound_s(Policy(deadlines=limits), work, on_gpu=False) == one - 1
    policy = Policy(deadlines=limits, launches=2, confirm_top=1, reference=(("tp", "1"),))
    cells = [replace(BASE, image="a"), replace(BASE, image="b"), replace(BASE, image="b", moe_backend="triton")]
    bound = time_bound(cells, work, policy, on_gpu=True)
    assert bound.launches == Race(launches=2, confirm_top=1, reference="x").limit(3)
    assert time_bound(cells, work, Policy(deadlines=limits), on_gpu=True).launches == 3
    assert bound.total_s == bound.launches * one + 200


def test_the_time_bound_counts_every_canary_launch_that_the_preflight_may_make() -> None:
    limits = Deadlines(ready_s=10, first_answer_s=5, canary_s=7, stop_s=2, gpu_free_s=1)
    two = Parallelism(tp=2)
    cells = [
        replace(BASE, moe_backend="marlin"),
        replace(BASE, moe_backend="triton"),
        replace(BASE, moe_backend="triton", name="again"),
        replace(BASE, moe_backend="marlin", parallelism=two),
        replace(BASE, moe_backend="auto", parallelism=two),
        replace(BASE, url="http://127.0.0.1:1"),
    ]
    named = time_bound(cells, (), Policy(deadlines=limits, canary="c", launches=3), on_gpu=True)
    assert named.canaries == 5, "auto of each layout comes first, whether a cell asks for it or not"
    assert named.canary_s == 10 + 5 + 7 + 2 + 1 + AROUND_S
    assert named.total_s == named.launches * named.launch_s + 5 * named.canary_s
    built = time_bound(cells, (), Policy(deadlines=limits, preflight=True, launches=3), on_gpu=True)
    assert built.total_s == named.total_s + BUILD_S
    assert time_bound(cells, (), Policy(deadlines=limits, launches=3), on_gpu=True).canaries == 0
    other = [replace(cell, engine="sglang") for cell in cells]
    assert time_bound(other, (), Policy(deadlines=limits, canary="c"), on_gpu=True).canaries == 4


def test_a_launcher_is_for_cells_that_insist_on_none() -> None:
    cells = (
        replace(BASE, image="a", name="boxed"),
        replace(BASE, python="/p", launcher="process", name="native"),
        replace(BASE, url="http://127.0.0.1:1", name="up"),
    )
    bent = started_by(matrix(*cells), "docker", "other")
    assert [(cell.launcher, cell.image) for cell in bent.cells] == [
        ("docker", "other"),
        ("process", None),
        (None, None),
    ]
    assert started_by(matrix(*cells), None) == matrix(*cells)
    with pytest.raises(UsageError, match="plain has none"):
        started_by(matrix(*cells, replace(BASE, name="plain")), "docker")
    with pytest.raises(UsageError, match="boxed has none"):
        started_by(matrix(*cells), "attach")


def test_cells_that_one_image_makes_equal_run_once() -> None:
    axis = [replace(BASE, image=image) for image in "ab"]
    assert len(started_by(matrix(*axis), "docker", "c").cells) == 1
