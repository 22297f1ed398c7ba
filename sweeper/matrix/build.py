"""A validated matrix file to the values of the core: cells out of axes, exclude rules applied, policy, workloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper.core.expand import cell_of, distinct_labels, merged, overlay, product, run_order
from sweeper.core.matching import Terms, key_of, matches
from sweeper.core.presets import distinct, preset
from sweeper.core.values import Cell, Deadlines, Hardware, Matrix, Parallelism, Policy, Speculative, Workload
from sweeper.matrix.models import CellFields, CellMatch, MatrixFile, PolicyFile, Strict, WorkloadFile
from sweeper.matrix.problems import KeyPath, Problem, written
from sweeper.matrix.source import Document

MAX_CELLS = 5000

Resolve = Callable[[str], str]
"""A path or model as written -> as it is used; hub ids stay what they are."""

_UNITED = ("env", "extra_args")
_AXIS_NOT_TOP = "is given at the top and as an axis; keep one of them"


@dataclass(slots=True)
class Build:
    """One pass over one file; problems are gathered, not raised."""

    document: Document
    resolve: Resolve
    problems: list[Problem] = field(default_factory=list)

    def matrix(self, name: str, file: MatrixFile) -> Matrix | None:
        """None when a problem was found."""
        written_cells = self._cells(file)
        if self.problems:
            return None
        rules = [(self.terms(rule, ("exclude", i)), rule.why) for i, rule in enumerate(file.exclude or ())]
        workloads = self._workloads(file)
        kept, removed, notes = _apply(rules, written_cells, self.document)
        policy = self._policy(file.policy)
        self._reference_exists(policy, [*kept, *(cell for cell, _ in removed)])
        if self.problems:
            return None
        return Matrix(
            name=name,
            path=self.document.path,
            title=file.title or "",
            cells=run_order(kept, policy.order_seed),
            author_excluded=tuple(removed),
            workloads=workloads,
            policy=policy,
            hardware=Hardware(**file.hardware.model_dump()),
            notes=tuple(notes),
        )

    def _cells(self, file: MatrixFile) -> list[Cell]:
        fixed = self.fields(file)
        axes = [*self._linked(file), *self._axes(file)]
        self._no_key_twice(file)
        count = len(file.cells or ())
        combinations = 1
        for axis in axes:
            combinations *= len(axis)
        if combinations + count > MAX_CELLS:
            self.complain(("axes",), f"{combinations + count} cells; at most {MAX_CELLS}")
        if self.problems:
            return []
        points = list(product(fixed, axes)) if axes or not file.cells else []
        named = [(overlay(fixed, self.fields(cell)), ("cells", i)) for i, cell in enumerate(file.cells or ())]
        self._names_once(file)
        cells = [self._cell(point, ()) for point in points]
        cells += [self._cell(point, place) for point, place in named]
        return list(distinct_labels(merged(cell for cell in cells if cell is not None)))

    def _cell(self, point: Mapping[str, Any], place: KeyPath) -> Cell | None:
        missing = [key for key in ("engine", "model") if not point.get(key)]
        for key in missing:
            problem = Problem(
                text="missing: give it at the top, as an axis or in every cell",
                line=self.document.line(place),
                key=written((*place, key)),
            )
            if problem not in self.problems:
                self.problems.append(problem)
        return None if missing else cell_of(point)

    def fields(self, given: CellFields) -> dict[str, Any]:
        """The keys that were written, as values of the core."""
        return {
            key: self._value(key, getattr(given, key))
            for key in _written_keys(given)
            if key in CellFields.model_fields or key == "name"
        }

    def _value(self, key: str, value: Any) -> Any:
        if key == "model" and value is not None:
            return self.resolve(value)
        if key == "python" and value is not None:
            return self.resolve(f"./{value}" if "/" in value and value[0] not in "./~" else value)
        if key == "moe_backend":
            return "auto" if value is None else value.lower().replace("-", "_")
        if key == "parallelism":
            return Parallelism(**value.model_dump()) if value else Parallelism()
        if key == "speculative" and value is not None:
            draft = self.resolve(value.model) if value.model else None
            extra = tuple(sorted(value.extra.items()))
            return Speculative(
                method=value.method, tokens=value.tokens, model=draft, moe_backend=value.moe_backend, extra=extra
            )
        if key == "env":
            return tuple(sorted((value or {}).items()))
        if key in ("extra_args", "command"):
            return tuple(value or ())
        return value

    def _axes(self, file: MatrixFile) -> list[list[dict[str, Any]]]:
        written_axes = self.document.data.get("axes") or {}
        return [
            [{key: self._value(key, value)} for value in getattr(file.axes, key)]
            for key in written_axes
            if getattr(file.axes, key, None) is not None
        ]

    def _linked(self, file: MatrixFile) -> list[list[dict[str, Any]]]:
        groups = []
        for index, group in enumerate(file.linked or ()):
            columns = {key: getattr(group, key) for key in _written_keys(group) if getattr(group, key) is not None}
            lengths = {key: len(values) for key, values in columns.items()}
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
                self.complain(("linked", index), f"linked lists change together and need one length: {told}")
                continue
            rows = zip(*columns.values(), strict=True)
            groups.append([{key: self._value(key, one) for key, one in zip(columns, row, strict=True)} for row in rows])
        return [group for group in groups if group]

    def _no_key_twice(self, file: MatrixFile) -> None:
        top = _written_keys(file)
        seen: set[str] = set()
        places: list[tuple[KeyPath, Strict]] = [(("linked", i), group) for i, group in enumerate(file.linked or ())]
        if file.axes:
            places.append((("axes",), file.axes))
        for place, group in places:
            for key in _written_keys(group):
                if key in _UNITED:
                    continue
                if key in top:
                    self.complain((*place, key), _AXIS_NOT_TOP)
                if key in seen:
                    self.complain((*place, key), "is an axis twice; keep one of them")
                seen.add(key)

    def _names_once(self, file: MatrixFile) -> None:
        first: dict[str, int] = {}
        for index, cell in enumerate(file.cells or ()):
            if cell.name is None:
                continue
            if cell.name in first:
                self.complain(("cells", index, "name"), f"'{cell.name}' is also the name of cells[{first[cell.name]}]")
            first.setdefault(cell.name, index)

    def terms(self, match: CellMatch, place: KeyPath) -> Terms:
        """A matcher as terms of `core.matching`."""
        found: list[tuple[str, str]] = []
        for key in _written_keys(match):
            value = getattr(match, key)
            if key == "why":
                continue
            if isinstance(value, Strict):
                found += [(_term_key(key, part), getattr(value, part)) for part in _written_keys(value)]
            elif isinstance(value, dict):
                found += [(f"{key}.{part}", text) for part, text in value.items()]
            else:
                found.append((key_of(key), "none" if value is None else value))
        if not found:
            self.complain(place, "matches every cell: give at least one key beside `why`")
        return tuple(found)

    def _policy(self, given: PolicyFile) -> Policy:
        return Policy(
            launches=given.launches,
            confirm_top=given.confirm_top,
            deadlines=Deadlines(**given.deadlines.model_dump()),
            reference=self.terms(given.reference, ("policy", "reference")) if given.reference else (),
            order_seed=given.order_seed,
            preflight=given.preflight,
            canary=self.resolve(given.canary) if given.canary else None,
        )

    def _reference_exists(self, policy: Policy, cells: Sequence[Cell]) -> None:
        if policy.reference and not any(matches(cell, policy.reference) for cell in cells):
            told = ", ".join(f"{key}={value}" for key, value in policy.reference)
            self.complain(("policy", "reference"), f"no cell of this matrix has {told}")

    def _workloads(self, file: MatrixFile) -> tuple[Workload, ...]:
        built: dict[str, Workload] = {}
        for index, given in enumerate(file.workloads or [WorkloadFile()]):
            for workload in _workloads_of(given):
                if workload.name in built:
                    self.complain(("workloads", index), f"a second workload called '{workload.name}'; give it a `name`")
                built[workload.name] = workload
        return tuple(built.values())

    def complain(self, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(text=text, line=self.document.line(path), key=written(path)))


def _written_keys(model: Strict) -> tuple[str, ...]:
    """The keys a person wrote, in the order of the model."""
    return tuple(key for key in type(model).model_fields if key in model.model_fields_set)


def _term_key(key: str, part: str) -> str:
    return part if key == "parallelism" else key_of(f"{key}.{part}")


def _workloads_of(given: WorkloadFile) -> list[Workload]:
    """The preset's workloads, each with the keys that were written over its own."""
    base = preset(given.preset).workloads
    own = {key: getattr(given, key) for key in _written_keys(given) if key not in ("name", "preset")}
    if "concurrency" in own:
        own["concurrency"] = tuple(own["concurrency"])
    changed = [replace(one, **own) for one in base]
    asked = distinct(changed) if len(base) > 1 else changed
    names = [one.name for one in asked]
    if given.name:
        names = [given.name] if len(asked) == 1 else [f"{given.name}-{name}" for name in names]
    return [replace(one, name=name) for one, name in zip(asked, names, strict=True)]


def _apply(
    rules: Sequence[tuple[Terms, str]], cells: Iterable[Cell], document: Document
) -> tuple[list[Cell], list[tuple[Cell, str]], list[str]]:
    """Cells kept; cells removed with the `why` of the first rule that matches; rules that match nothing."""
    idle = set(range(len(rules)))
    kept: list[Cell] = []
    removed: list[tuple[Cell, str]] = []
    for cell in cells:
        hits = [index for index, (terms, _) in enumerate(rules) if matches(cell, terms)]
        idle -= set(hits)
        if hits:
            removed.append((cell, rules[hits[0]][1]))
        else:
            kept.append(cell)
    notes = [
        f"{document.path}:{document.line(('exclude', index))}: exclude[{index}] matches no cell"
        for index in sorted(idle)
    ]
    return kept, removed, notes
