"""What two trees are called: kernel, python, config or identical."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.audit.compare import Audit, Change, FileChange
from sweeper.audit.kinds import Kind, Level
from sweeper.audit.whole import run_audit

TRITON = """import triton
import triton.language as tl

BLOCK = 64

@triton.jit
def add(x, n, B: tl.constexpr):
    \"\"\"Adds.\"\"\"
    tl.store(x, tl.load(x) + {value})

def launch(x):
    return add[(1,)](x, {n}, B=BLOCK)
"""
BASE = {
    "eng/ops/add.py": TRITON.format(value=1, n=4),
    "eng/scheduler.py": "STEP = 1\n",
    "eng/layers/fused_moe/layer.py": "def pick():\n    return 'cutlass'\n",
    "eng/layers/fused_moe/configs/E=8,N=512,device_name=NVIDIA_H200.json": '{"1": {"BLOCK_SIZE_M": 16}}',
    "eng/settings.json": '{"a": 1}',
    "eng/kernels/k.cu": "__global__ void k() {} // one\n",
    "eng/_version.py": "__version__ = '1.0'\n",
    "eng-1.0.dist-info/METADATA": "Name: eng\nVersion: 1.0\nRequires-Dist: torch==2.9\n\nA text.\n",
    "eng-1.0.dist-info/RECORD": "eng/settings.json,sha256=1,1\n",
    "README.md": "Words.\n",
}


def compared(wheel: object, **changed: str | None) -> Audit:
    """Audit of BASE against BASE with some files changed; keys are unique parts of the paths, None removes."""
    files = dict(BASE)
    for part, content in changed.items():
        (path,) = [known for known in BASE if part.replace("__", "/") in known]
        if content is None:
            del files[path]
        else:
            files[path] = content
    result, _ = run_audit(str(wheel("a", BASE)), str(wheel("b", files, stamp=2026)))  # type: ignore[operator]
    return result


def only(result: Audit) -> FileChange:
    (file,) = result.files
    return file


def test_zips_that_differ_in_time_stamps_are_identical(wheel: object) -> None:
    result = compared(wheel)
    assert result.verdict is Level.IDENTICAL
    assert result.files == ()


def test_a_changed_triton_kernel_is_a_kernel_change(wheel: object) -> None:
    result = compared(wheel, add=TRITON.format(value=2, n=4))
    assert (result.verdict, only(result).kind) == (Level.KERNEL, Kind.SOURCE)
    assert any(line.startswith("+") and "+ 2" in line for line in result.diff)


def test_a_changed_constant_beside_a_triton_kernel_is_a_kernel_change(wheel: object) -> None:
    assert compared(wheel, add=TRITON.format(value=1, n=4).replace("64", "128")).verdict is Level.KERNEL


def test_a_changed_call_of_an_unchanged_triton_kernel_is_python(wheel: object) -> None:
    result = compared(wheel, add=TRITON.format(value=1, n=8))
    assert (result.verdict, only(result).kind) == (Level.PYTHON, Kind.SELECTOR)
    assert only(result).detail == "its kernels are the same"


def test_changed_python_that_picks_kernels_is_python_and_told_apart(wheel: object) -> None:
    result = compared(wheel, fused_moe__layer="def pick():\n    return 'marlin'\n", scheduler="STEP = 2\n")
    assert result.verdict is Level.PYTHON
    assert [file.kind for file in result.files] == [Kind.SELECTOR, Kind.PYTHON]


def test_a_changed_settings_file_is_config(wheel: object) -> None:
    assert compared(wheel, settings='{"a": 2}').verdict is Level.CONFIG


def test_a_tuned_table_is_config_and_listed_apart(wheel: object) -> None:
    result = compared(wheel, H200='{"1": {"BLOCK_SIZE_M": 64}}')
    assert (result.verdict, only(result).kind) == (Level.CONFIG, Kind.TABLE)


def test_a_changed_requirement_is_config(wheel: object) -> None:
    text = BASE["eng-1.0.dist-info/METADATA"].replace("2.9", "2.10")
    assert compared(wheel, METADATA=text).verdict is Level.CONFIG


def test_a_changed_cuda_source_is_a_kernel_change(wheel: object) -> None:
    assert compared(wheel, kernels__k="__global__ void k() { int x; }\n").verdict is Level.KERNEL


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("kernels__k", "__global__  void k() {} /* two */\n"),
        ("add", "# a comment\n" + TRITON.format(value=1, n=4).replace("Adds.", "Adds one.")),
        ("_version", "__version__ = '1.0.post1'\n"),
        ("METADATA", BASE["eng-1.0.dist-info/METADATA"].replace("A text.", "Another.")),
    ],
)
def test_comments_docstrings_stamps_and_descriptions_change_nothing(wheel: object, part: str, content: str) -> None:
    result = compared(wheel, **{part: content})
    assert result.verdict is Level.IDENTICAL
    assert only(result).change is Change.REWORDED


def test_a_readme_changes_nothing_that_runs(wheel: object) -> None:
    result = compared(wheel, README="Other words.\n")
    assert (result.verdict, only(result).kind) == (Level.IDENTICAL, Kind.REST)


def test_added_and_removed_files_are_told(wheel: object) -> None:
    result = compared(wheel, scheduler=None)
    assert (result.verdict, only(result).change) == (Level.PYTHON, Change.REMOVED)
    a, b = wheel("x", {"e/a.py": "A = 1\n"}), wheel("y", {"e/a.py": "A = 1\n", "e/k.cu": "__global__ void k() {}"})  # type: ignore[operator]
    added, _ = run_audit(str(a), str(b))
    assert (added.verdict, only(added).change) == (Level.KERNEL, Change.ADDED)


def test_a_moved_kernel_is_no_kernel_change(wheel: object) -> None:
    a = wheel("x", {"e/old.cu": "__global__ void k() {}", "e/a.py": "A = 1\n"})  # type: ignore[operator]
    b = wheel("y", {"e/new.cu": "__global__ void k() {}", "e/a.py": "A = 1\n"})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b))
    assert only(result).change is Change.RENAMED
    assert result.verdict is Level.PYTHON


def test_a_fork_under_another_name_is_compared_file_by_file(wheel: object) -> None:
    fork = {path.replace("eng-1.0.dist", "my_eng-1.0.post4.dist"): text for path, text in BASE.items()}
    result, _ = run_audit(str(wheel("a", BASE)), str(wheel("b", fork)))  # type: ignore[operator]
    assert (result.verdict, result.files) == (Level.IDENTICAL, ())


def test_a_wheel_and_an_environment_that_holds_it_are_identical(wheel: object, folder: object) -> None:
    inside = {f"lib/python3.12/site-packages/{path}": text for path, text in BASE.items() if path != "README.md"}
    more = {"pyvenv.cfg": "home = /usr\n", "lib/python3.12/site-packages/other/x.py": "X = 1\n"}
    cached = {"lib/python3.12/site-packages/eng/__pycache__/scheduler.cpython-312.pyc": b"\x00"}
    env = folder("env", {**inside, **more, **cached})  # type: ignore[operator]
    base = {path: text for path, text in BASE.items() if path != "README.md"}
    assert run_audit(str(wheel("a", base)), str(env))[0].verdict is Level.IDENTICAL  # type: ignore[operator]


def test_only_narrows_the_comparison(wheel: object) -> None:
    a, b = wheel("a", BASE), wheel("b", {**BASE, "eng/scheduler.py": "STEP = 3\n"})  # type: ignore[operator]
    assert run_audit(str(a), str(b), only=["eng/ops"])[0].verdict is Level.IDENTICAL


def test_the_diff_is_bounded(wheel: object, tmp_path: Path) -> None:
    a = wheel("a", {f"e/moe{i}.py": "A = 1\n" * 100 for i in range(20)})  # type: ignore[operator]
    b = wheel("b", {f"e/moe{i}.py": "A = 2\n" * 100 for i in range(20)})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(b), diff_lines=130)
    assert len(result.diff) <= 131
    assert "left out" in result.diff[-1]
