"""Compare two trees: what differs, what it can do to speed, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from sweeper.audit import names, texts
from sweeper.audit.fatbin import Binary, by_code
from sweeper.audit.kinds import LIBRARY, Kind, Level, ignored, is_stamp, kind_of, level_of
from sweeper.audit.trees import DAMAGED, Entry, Form, Tree, binary_of, is_elf, same_content, seekable, text_of
from sweeper.core.errors import BadFile, UsageError

TEXT_BYTES = 2 << 20
FILE_LINES = 60
ORDER = list(Level)
GPU_SAME = "GPU code: all"
PLAIN = (".py", ".json", ".md", ".txt", ".h", ".hpp", ".cuh", ".cu", ".yaml", ".csv", ".html", ".js", ".inl", ".rst")
DIFFED = (Kind.SOURCE, Kind.SELECTOR, Kind.QUANTIZATION, Kind.CONFIG, Kind.TABLE, Kind.PYTHON)


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENAMED = "renamed"
    """Another path, the same content."""
    REWORDED = "reworded"
    """Only comments, docstrings, white space or a version stamp differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file that is not the same on both sides."""

    path: str
    kind: Kind
    change: Change
    level: Level
    before: str | None = None
    """Its path in A where that is another one."""
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Outcome of one comparison. `archs_*`: GPU architectures of every binary that holds GPU code, by path."""

    a: str
    b: str
    files: tuple[FileChange, ...]
    archs_a: dict[str, tuple[str, ...]]
    archs_b: dict[str, tuple[str, ...]]
    same: int
    diff: tuple[str, ...]

    @property
    def gpu_code_same(self) -> bool:
        """True when a kernel-level verdict rests on host code only, around GPU code that is the same."""
        deep = [file for file in self.files if file.level is Level.KERNEL]
        return bool(deep) and all((file.detail or "").startswith(GPU_SAME) for file in deep)

    @property
    def verdict(self) -> Level:
        """The deepest change found."""
        return min((file.level for file in self.files), key=ORDER.index, default=Level.IDENTICAL)


def audit(
    a: Tree,
    b: Tree,
    *,
    only: Iterable[str] = (),
    diff_lines: int = 200,
    on_progress: Callable[[str], None] = lambda path: None,
) -> Audit:
    """Compare A with B. `only`: path prefixes to look at. Raises UsageError when nothing is left, BadFile."""
    return _Comparison(a, b, tuple(only), diff_lines, on_progress).run()


class _Comparison:
    def __init__(
        self, a: Tree, b: Tree, only: tuple[str, ...], diff_lines: int, on_progress: Callable[[str], None]
    ) -> None:
        self.a, self.b, self.diff_lines, self.on_progress = a, b, diff_lines, on_progress
        self.old, self.new = _scoped(a, b, only), _scoped(b, a, only)
        if not self.old or not self.new:
            empty = b.name if self.old else a.name
            raise UsageError(f"{empty} holds no file to compare", hint="Is it the right folder, or --only too narrow?")
        self.system = {a.form, b.form} & {Form.IMAGE, Form.ENVIRONMENT} == {a.form, b.form}
        self.files: list[FileChange] = []
        self.archs_a: dict[str, tuple[str, ...]] = {}
        self.archs_b: dict[str, tuple[str, ...]] = {}
        self.same = 0
        self.diffs: list[tuple[int, list[str]]] = []

    def run(self) -> Audit:
        both = [key for key in self.old if key in self.new]
        removed = {key: self.old[key].fingerprint for key in self.old if key not in self.new}
        added = {key: self.new[key].fingerprint for key in self.new if key not in self.old}
        moves = names.moved(removed, added)
        pairs = [(self.old[key], self.new[key]) for key in both]
        pairs += [(self.old[key], self.new[moves[key]]) for key in moves]
        for one, two in pairs:
            self._guard(self._pair, one, two)
        for key in removed:
            if key not in moves:
                self._guard(self._single, self.old[key], Change.REMOVED, self.archs_a)
        for key in added.keys() - set(moves.values()):
            self._guard(self._single, self.new[key], Change.ADDED, self.archs_b)
        kinds = list(Kind)
        self.files.sort(key=lambda f: (ORDER.index(f.level), kinds.index(f.kind), f.path))
        return Audit(
            a=self.a.name,
            b=self.b.name,
            files=tuple(self.files),
            archs_a=dict(sorted(self.archs_a.items())),
            archs_b=dict(sorted(self.archs_b.items())),
            same=self.same,
            diff=self._diff(),
        )

    def _guard(self, step: Callable[..., None], *entries: object) -> None:
        first = next(entry for entry in entries if isinstance(entry, Entry))
        self.on_progress(first.path)
        try:
            step(*entries)
        except DAMAGED as error:
            side = self.a.name if first in (self.old.get(k) for k in (first.path,)) else self.b.name
            raise BadFile(
                side,
                f"{first.path} is damaged: {error or type(error).__name__}",
                hint=f"Make or download {side} again.",
            ) from None

    def _single(self, entry: Entry, change: Change, archs: dict[str, tuple[str, ...]]) -> None:
        compiled = _compiled(entry)
        binary = binary_of(entry) if compiled else None
        if binary and binary.archs:
            archs[entry.path] = binary.archs
        content = text_of(entry, TEXT_BYTES) if entry.path.endswith(".py") else b""
        kind = kind_of(entry.path, content, gpu=bool(binary and binary.gpu), elf=compiled, system=self.system)
        level = (
            Level.IDENTICAL
            if is_stamp(entry.path) or (not content.strip() and entry.size == 0)
            else level_of(kind, entry.path)
        )
        self.files.append(FileChange(path=entry.path, kind=kind, change=change, level=level, detail=_listed(binary)))

    def _pair(self, old: Entry, new: Entry) -> None:
        same = same_content(old, new)
        if _compiled(new):
            self._binaries(old, new, same)
        elif same:
            self._unchanged(old, new, kind_of(new.path))
        else:
            self._texts(old, new)

    def _unchanged(self, old: Entry, new: Entry, kind: Kind) -> None:
        self.same += 1
        if names.key_of(old.path, one_package=True) != names.key_of(new.path, one_package=True):
            # A module under another name is imported by other code; a kernel under another name is the same kernel.
            level = min(level_of(kind, new.path), Level.PYTHON, key=lambda item: -ORDER.index(item))
            self._add(old, new, kind, Change.RENAMED, level)

    def _binaries(self, old: Entry, new: Entry, same: bool) -> None:
        two = binary_of(new)
        one = two if same else binary_of(old)
        again = 0
        if one and two and not same:
            one, two, again = _matched_by_code(old, new, one, two)
        for binary, entry, archs in ((one, old, self.archs_a), (two, new, self.archs_b)):
            if binary and binary.archs:
                archs[entry.path] = binary.archs
        gpu = bool((one and one.gpu) or (two and two.gpu))
        kind = kind_of(new.path, gpu=gpu, elf=True, system=self.system)
        detail = None if same else _difference(one, two, again)
        if detail is None:
            self._unchanged(old, new, kind)
        else:
            self._add(old, new, kind, Change.CHANGED, level_of(kind, new.path), detail)

    def _texts(self, old: Entry, new: Entry) -> None:
        if max(old.size, new.size) > TEXT_BYTES:
            kind = kind_of(new.path)
            self._add(old, new, kind, Change.CHANGED, level_of(kind, new.path), "too large for a diff")
            return
        one, two = text_of(old, TEXT_BYTES), text_of(new, TEXT_BYTES)
        kind = min(kind_of(new.path, one), kind_of(new.path, two), key=list(Kind).index)
        if is_stamp(new.path):
            self._add(old, new, kind, Change.REWORDED, Level.IDENTICAL, "version stamp")
        elif texts.same_effect(new.path, one, two):
            self._add(old, new, kind, Change.REWORDED, Level.IDENTICAL, "comments, docstrings or white space only")
        else:
            detail = None
            if kind is Kind.SOURCE and new.path.endswith(".py") and not texts.kernels_differ(one, two):
                kind, detail = Kind.SELECTOR, "its kernels are the same"
            level = level_of(kind, new.path)
            self._add(old, new, kind, Change.CHANGED, level, detail)
            if kind in DIFFED and self.diff_lines:
                lines = texts.diff(old.path, new.path, one, two, min(FILE_LINES, self.diff_lines))
                self.diffs.append((list(Kind).index(kind), lines))

    def _add(self, old: Entry, new: Entry, kind: Kind, change: Change, level: Level, detail: str | None = None) -> None:
        before = old.path if old.path != new.path else None
        self.files.append(
            FileChange(path=new.path, kind=kind, change=change, level=level, before=before, detail=detail)
        )

    def _diff(self) -> tuple[str, ...]:
        """Kernel sources first, smaller diffs before larger ones, whole until the limit is reached."""
        out: list[str] = []
        left_out = 0
        for _, lines in sorted(self.diffs, key=lambda item: (item[0], len(item[1]))):
            if len(out) + len(lines) > self.diff_lines:
                left_out += 1
            else:
                out += lines
        if left_out:
            out.append(f"(diffs of {left_out} more files left out; --diff-lines N shows more)")
        return tuple(out)


def _scoped(tree: Tree, other: Tree, only: tuple[str, ...]) -> dict[str, Entry]:
    """key -> entry of the files that are to be compared, hashes and versions in names left out of the key."""
    entries = {path: entry for path, entry in tree.entries.items() if not ignored(path)}
    wheel_against_more = other.form is Form.WHEEL and tree.form in (Form.ENVIRONMENT, Form.IMAGE)
    if wheel_against_more:
        entries = _installed(entries, names.top_level(other.entries))
    elif (tree.form, other.form) == (Form.IMAGE, Form.ENVIRONMENT):
        entries = _installed(entries, None)
    if only:
        wanted = names.within(entries, only)
        entries = {path: entry for path, entry in entries.items() if path in wanted}
    one_package = tree.form is Form.WHEEL
    if wheel_against_more or (one_package and other.form in (Form.ENVIRONMENT, Form.IMAGE)):
        # An environment holds the metadata of many packages; a wheel is compared with its own files there.
        entries = {path: entry for path, entry in entries.items() if not names.DIST_INFO.search(path)}
    return {key: entries[path] for key, path in names.keyed(entries, one_package=one_package).items()}


def _installed(entries: dict[str, Entry], packages: frozenset[str] | None) -> dict[str, Entry]:
    """The files of these packages (None: of all), by their path below site-packages or dist-packages."""
    out = {}
    for path, entry in entries.items():
        inner = path
        for folder in ("site-packages/", "dist-packages/"):
            if folder in path:
                inner = path.split(folder, 1)[1]
        if inner != path if packages is None else inner.split("/", 1)[0] in packages:
            out[inner] = replace(entry, path=inner)
    return out


def _compiled(entry: Entry) -> bool:
    if LIBRARY.search(entry.path.lower()):
        return True
    return not entry.path.endswith(PLAIN) and entry.size > 64 and is_elf(entry)


def _listed(binary: Binary | None) -> str | None:
    return f"GPU code for {', '.join(binary.archs)}" if binary and binary.archs else None


def _matched_by_code(old: Entry, new: Entry, one: Binary, two: Binary) -> tuple[Binary, Binary, int]:
    """Look into the GPU code entries without a match; third, how many of them turn out to do the same."""
    before = Counter(one.gpu) & Counter(two.gpu)
    if old.indexed or new.indexed or before.total() in (len(one.gpu), len(two.gpu)):
        return one, two, 0
    with seekable(old) as file:
        left = by_code(file, one, (Counter(one.gpu) - before).keys())
    with seekable(new) as file:
        right = by_code(file, two, (Counter(two.gpu) - before).keys())
    return left, right, (Counter(left.gpu) & Counter(right.gpu)).total() - before.total()


def _difference(one: Binary | None, two: Binary | None, again: int) -> str | None:
    """None when both do the same, else a short sentence: GPU code entry by entry, host code by section."""
    if one is None or two is None:
        return "content differs, not readable as ELF"
    old, new = Counter(one.gpu), Counter(two.gpu)
    left, right = dict(one.sections), dict(two.sections)
    host = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    if old == new and not host:
        return None
    parts = [f"host code differs in {', '.join(host)}"] if host else []
    rebuilt = f" ({again} built again)" if again else ""
    if old != new:
        gone, come = (old - new).total(), (new - old).total()
        parts.insert(0, f"GPU code: {(old & new).total()} entries same{rebuilt}, {gone} only in A, {come} only in B")
    elif old:
        parts.insert(0, f"{GPU_SAME} {old.total()} entries same{rebuilt}")
    return "; ".join(parts)
