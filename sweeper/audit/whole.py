"""The command as one call: open both sides, compare, look for injected code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeper.audit import injected
from sweeper.audit.compare import Audit, Change, audit
from sweeper.audit.injected import Finding
from sweeper.audit.running import open_container, process_findings
from sweeper.audit.trees import Tree, open_tree, text_of
from sweeper.core.errors import UsageError

CONTAINER, PROCESS = "container:", "process:"
START_BYTES = 1 << 16


def run_audit(
    a: str,
    b: str | None = None,
    *,
    only: Sequence[str] = (),
    diff_lines: int = 200,
    on_progress: Callable[[str], None] = lambda path: None,
) -> tuple[Audit, list[Finding]]:
    """Two sources, or one `container:NAME` against its image (or the image B), or one `process:PID` alone."""
    if a.startswith(PROCESS):
        return _process(a), process_findings(_pid(a))
    if a.startswith(CONTAINER):
        image = b.removeprefix("image:") if b else None
        with open_container(a.removeprefix(CONTAINER), image) as (old, new, findings):
            result = audit(old, new, only=only, diff_lines=diff_lines, on_progress=on_progress)
            return result, _of_trees(result, old, new) + findings
    if b is None:
        raise UsageError("two things to compare are needed", hint="Or one container:NAME, or one process:PID")
    on_progress(f"reading {a} and {b}")
    with open_tree(a) as old, open_tree(b) as new:
        result = audit(old, new, only=only, diff_lines=diff_lines, on_progress=on_progress)
        return result, _of_trees(result, old, new)


def _of_trees(result: Audit, old: Tree, new: Tree) -> list[Finding]:
    """Variables that B sets and A does not, and files of B that run by being there."""
    changed = {key: value for key, value in new.environ.items() if old.environ.get(key) != value}
    found = injected.of_environment(changed)
    for file in result.files:
        entry = new.entries.get(file.path)
        if entry is not None and file.change in (Change.ADDED, Change.CHANGED):
            finding = injected.of_change(file.path, text_of(entry, START_BYTES).decode("utf-8", "replace"))
            found += [finding] if finding else []
    return found


def _pid(source: str) -> int:
    try:
        return int(source.removeprefix(PROCESS))
    except ValueError:
        raise UsageError(f"{source}: not a process number", hint="Example: process:4711") from None


def _process(name: str) -> Audit:
    return Audit(a=name, b="what its environment holds", files=(), archs_a={}, archs_b={}, same=0, diff=())
