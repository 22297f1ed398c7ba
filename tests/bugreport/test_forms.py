"""Which project a report is for, and the headings that its form asks for."""

from __future__ import annotations

import pytest

from sweeper.bugreport.templates import form_for, forms
from sweeper.bugreport.trust import doubts
from sweeper.core.errors import UsageError
from sweeper.core.values import Cell


@pytest.mark.parametrize(
    ("cause", "engine", "name"),
    [
        ("segfault", "vllm", "vllm"),
        ("segfault", "sglang", "sglang"),
        ("cutlass-tma-ws-grouped-gemm-init", "vllm", "cutlass"),
        ("flashinfer-jit-build-failed", "sglang", "flashinfer"),
        ("trtllm-gen-kernel-unsupported-arch", "vllm", "flashinfer"),
        (None, "command", "vllm"),
    ],
)
def test_the_form_goes_by_the_cause_then_by_the_engine(cause: str | None, engine: str, name: str) -> None:
    assert form_for(cause, engine).name == name


def test_a_form_can_be_asked_for_and_an_unknown_one_is_told() -> None:
    assert form_for("segfault", "vllm", "sglang").name == "sglang"
    with pytest.raises(UsageError, match="no form for 'llama'"):
        form_for("segfault", "vllm", "llama")


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("vllm", ["### Your current environment", "### 🐛 Describe the bug", "### Before submitting a new issue..."]),
        ("sglang", ["### Checklist", "### Describe the bug", "### Reproduction", "### Environment"]),
        (
            "flashinfer",
            ["### Before submitting", "### Environment", "### Bug description", "### Minimal reproduction"],
        ),
        ("cutlass", ["**Describe the bug**", "**Steps/Code to reproduce bug**", "**Expected behavior**"]),
    ],
)
def test_a_form_has_the_projects_headings_in_order(name: str, headings: list[str]) -> None:
    lines = forms()[name].text.template.splitlines()
    assert [line for line in lines if line in headings] == headings


@pytest.mark.parametrize(
    "cell",
    [
        Cell(engine="command", model="m", command=("sh", "-c", "id")),
        Cell(engine="vllm", model="m", image="stranger/vllm:1", launcher="docker"),
        Cell(engine="vllm", model="m", env=(("LD_PRELOAD", "x.so"),)),
        Cell(engine="vllm", model="m", extra_args=("--trust-remote-code",)),
        Cell(engine="vllm", model="m", extra_args=("--model=stranger/model",)),
    ],
)
def test_what_brings_code_of_its_own_must_be_trusted_first(cell: Cell) -> None:
    assert doubts(cell, image_is_ours=False)


def test_the_engine_alone_needs_no_trust() -> None:
    cell = Cell(
        engine="vllm", model="m", image="vllm/vllm-openai:v0.32.0", launcher="docker",
        env=(("TORCHDYNAMO_DISABLE", "1"), ("VLLM_USE_V1", "1")), extra_args=("--enforce-eager", "--max-num-seqs", "8"),
    )  # fmt: skip
    assert not doubts(cell, image_is_ours=False)
