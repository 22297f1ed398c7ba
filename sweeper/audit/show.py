"""An audit as text and as JSON (schema 1). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sweeper.audit.compare import Audit, Change, FileChange
from sweeper.audit.injected import Finding
from sweeper.audit.kinds import Kind, Level

SENTENCE = {
    Level.KERNEL: "kernel: compiled kernels or kernel sources differ",
    Level.PYTHON: "python: no kernel differs; host code (Python that selects, wraps or calls kernels) does",
    Level.CONFIG: "config: no code differs; settings or tuned tables do",
    Level.IDENTICAL: "identical: nothing that is executed or read as a setting differs",
}
INJECTED = {
    Level.KERNEL: "injected libraries or overrides can replace kernels; the files compared do not",
    Level.PYTHON: "injected Python can change host code; the files compared do not",
}
REBUILT = "kernel: compiled extensions differ in host code; all GPU code in them is the same"
TITLES = {
    Kind.COMPILED: "compiled kernels",
    Kind.SOURCE: "kernel sources (CUDA, Triton, CuTe)",
    Kind.TABLE: "tuned tables (launch parameters; count as configuration)",
    Kind.SELECTOR: "Python that selects or wraps kernels",
    Kind.QUANTIZATION: "quantisation",
    Kind.PYTHON: "other Python",
    Kind.NATIVE: "other compiled code",
    Kind.CONFIG: "settings and requirements",
    Kind.REST: "the rest",
}
SHOWN = 12
QUIET = (Kind.REST,)


def deepest(result: Audit, findings: Sequence[Finding]) -> Level:
    """Verdict over files and injected code."""
    return min([result.verdict, *(finding.level for finding in findings)], key=list(Level).index)


def as_json(result: Audit, findings: Sequence[Finding] = ()) -> dict[str, Any]:
    """The object of `audit --json`. `archs` is of B, and of A for files that only A has; `archs_a` of all of A."""
    return {
        "schema": 1,
        "a": result.a,
        "b": result.b,
        "verdict": deepest(result, findings).value,
        "same": result.same,
        "files": [_file(file) for file in result.files],
        "archs": {path: list(archs) for path, archs in {**_only_a(result), **result.archs_b}.items()},
        "archs_a": {path: list(archs) for path, archs in result.archs_a.items()},
        "injected": [{"what": f.what, "where": f.where, "means": f.means} for f in findings],
        "diff": list(result.diff),
    }


def _only_a(result: Audit) -> dict[str, tuple[str, ...]]:
    gone = {file.path for file in result.files if file.change is Change.REMOVED}
    return {path: archs for path, archs in result.archs_a.items() if path in gone}


def _file(file: FileChange) -> dict[str, str]:
    out = {"path": file.path, "kind": file.kind.value, "change": file.change.value, "level": file.level.value}
    if file.before:
        out["before"] = file.before
    if file.detail:
        out["detail"] = file.detail
    return out


def as_text(result: Audit, findings: Sequence[Finding] = (), *, everything: bool = False) -> str:
    """For a person: the verdict first, then why. `everything` lists every file."""
    verdict = deepest(result, findings)
    sentence = SENTENCE[verdict] if verdict is result.verdict else f"{verdict.value}: {INJECTED[verdict]}"
    if verdict is Level.KERNEL and result.gpu_code_same:
        sentence = REBUILT
    lines = [f"A  {result.a}", f"B  {result.b}", "", f"verdict  {sentence}", ""]
    lines += findings_text(findings)
    lines += _counts(result)
    for kind in Kind:
        lines += _section(kind, [file for file in result.files if file.kind is kind], everything)
    lines += _archs(result, everything)
    if result.diff:
        lines += ["", "diff of what matters", *result.diff]
    return "\n".join(lines).rstrip() + "\n"


def findings_text(findings: Iterable[Finding]) -> list[str]:
    out = []
    for finding in findings:
        out += [f"injected  {finding.what}: {finding.where}", f"          {finding.means}"]
    return [*out, ""] if out else []


def _counts(result: Audit) -> list[str]:
    changes = [file.change for file in result.files]
    parts = [f"{changes.count(change)} {change.value}" for change in Change if change in changes]
    return [f"{result.same} files same" + (", " + ", ".join(parts) if parts else "")]


def _section(kind: Kind, files: list[FileChange], everything: bool) -> list[str]:
    # What only got another comment or name is of no interest unless asked for.
    shown = files if everything else [f for f in files if f.level is not Level.IDENTICAL]
    if not shown or (kind in QUIET and not everything):
        return []
    lines = ["", f"{TITLES[kind]}: {len(shown)}"]
    rows = shown if everything else shown[:SHOWN]
    lines += [f"  {_mark(file.change)} {_name(file)}" + (f"  ({file.detail})" if file.detail else "") for file in rows]
    if len(shown) > len(rows):
        lines.append(f"  and {len(shown) - len(rows)} more (--all lists them)")
    return lines


def _mark(change: Change) -> str:
    return {"added": "+", "removed": "-", "changed": "~", "renamed": ">", "reworded": "="}[change.value]


def _name(file: FileChange) -> str:
    return f"{file.before} -> {file.path}" if file.before else file.path


def _archs(result: Audit, everything: bool) -> Iterator[str]:
    paired = {file.path: file.before for file in result.files if file.before}
    rows = []
    for path in sorted(result.archs_a.keys() | result.archs_b.keys()):
        if path in paired.values():
            continue
        old, new = result.archs_a.get(paired.get(path) or path), result.archs_b.get(path)
        if old == new and new is not None:
            rows.append(f"  {path}: {' '.join(new)}")
        else:
            rows += [f"  {path}", f"    A  {' '.join(old) if old else '-'}", f"    B  {' '.join(new) if new else '-'}"]
    if rows:
        yield from ("", "GPU architectures (one line where A and B agree)")
        limit = len(rows) if everything else 60
        yield from rows[:limit]
        if len(rows) > limit:
            yield f"  and {len(rows) - limit} more lines (--all lists them)"
