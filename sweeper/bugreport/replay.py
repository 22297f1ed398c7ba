"""Run somebody else's report: its cell, over the canary, through the same trial as any other cell; then compare."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeper.bugreport import builder
from sweeper.bugreport.archive import BadArchive, Opened, read
from sweeper.bugreport.case import judged
from sweeper.bugreport.recipe import QUANTS, Recipe, canary_arguments
from sweeper.bugreport.trust import doubts
from sweeper.bugreport.versions import differences, versions_of
from sweeper.canary import needs
from sweeper.core import codec
from sweeper.core.arguments import runs_on_cpu
from sweeper.core.errors import EnvironmentNotReady, RecordUnusable, SweeperError, UsageError
from sweeper.core.values import Cell, Deadlines, Hardware, Matrix, Policy, Workload
from sweeper.core.verdicts import Outcome, Verdict

BUILD_S = 1800.0
NOT_THERE = ("executable-missing", "image-not-found", "image-pull-unauthorized", "port-in-use", "docker-no-gpu-runtime")
"""Causes that say that this machine lacks something, not that the report is wrong."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A report that was read and checked: what to run, and what should happen."""

    path: Path
    manifest: Mapping[str, Any]
    cell: Cell
    recipe: Recipe


def open_report(path: Path) -> Source:
    """Raises BadArchive."""
    opened = read(path)
    if opened.manifest.get("reproducer") == "none":
        raise BadArchive(f"{path}: this report has no reproducer", hint="Its README.md says why.")
    expected = opened.manifest.get("expected")
    if not isinstance(expected, dict) or not isinstance(opened.manifest.get("seen_with", {}), dict):
        raise BadArchive(f"{path}: manifest.json: expected: missing, or not an object")
    try:
        cell = codec.load(Cell, _json(path, opened, "reproducer/cell.json"))
    except RecordUnusable as problem:
        raise BadArchive(f"{path}: reproducer/cell.json: {problem.message}") from None
    return Source(path=path, manifest=opened.manifest, cell=cell, recipe=_recipe(path, opened))


def _recipe(path: Path, opened: Opened) -> Recipe:
    data = _json(path, opened, "reproducer/canary.json")
    config = _json(path, opened, "reproducer/canary-config.json")
    layers = data.get("layers")
    if data.get("kind") not in ("like", "speaking") or data.get("quant") not in QUANTS:
        raise BadArchive(f"{path}: reproducer/canary.json: kind or quant is not one that this version knows")
    if layers is not None and (not isinstance(layers, int) or not 1 <= layers <= 64):
        raise BadArchive(f"{path}: reproducer/canary.json: layers: not a number from 1 to 64")
    return Recipe(
        kind=data["kind"], quant=data["quant"], layers=layers, mtp=bool(data.get("mtp")),
        golden=bool(data.get("golden")), config=config,
    )  # fmt: skip


def _json(path: Path, opened: Opened, name: str) -> dict[str, Any]:
    try:
        data = json.loads(opened.files[name])
    except KeyError:
        raise BadArchive(f"{path}: {name} is missing") from None
    except (ValueError, RecursionError) as error:
        raise BadArchive(f"{path}: {name}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadArchive(f"{path}: {name}: not a JSON object")
    return data


def cell_here(source: Source, python: str | None, image: str | None, *, trust: bool) -> Cell:
    """The report's cell with this machine's interpreter or image. Raises UsageError, EnvironmentNotReady."""
    cell = source.cell
    if image:
        cell = replace(cell, image=image, launcher="docker", python=None)
    elif python:
        cell = replace(cell, python=python, launcher="process", image=None)
    worries = doubts(cell, image_is_ours=image is not None)
    if worries and not trust:
        raise UsageError(f"{source.path}: {worries[0]}", hint="Look at reproducer/cell.json, then add --trust.")
    if cell.launcher == "docker":
        return cell
    asks = cell.engine != "command" or any("{python}" in word for word in cell.command)
    chosen = cell.python or _default_python(cell)
    if asks and (chosen is None or shutil.which(chosen) is None):
        raise EnvironmentNotReady(
            f"no interpreter with {cell.engine}" + (f": {chosen} does not exist" if chosen else ""),
            hint="Give one: --python /path/to/environment/bin/python, or an image: --image NAME",
        )
    return replace(cell, python=chosen)


def _default_python(cell: Cell) -> str | None:
    import os

    named = os.environ.get("SWEEPER_ENGINE_PYTHON")
    prepared = sorted(Path(".sweeper/engines").glob(f"{cell.engine}*/bin/python"))
    if named or prepared:
        return named or str(prepared[0].absolute())
    return sys.executable if cell.engine == "command" else None


def enough_gpus(cell: Cell, gpus: Sequence[str]) -> None:
    """Raises EnvironmentNotReady where the cell wants more GPUs than there are."""
    wanted = 0 if cell.engine == "command" or runs_on_cpu(cell) else cell.parallelism.world_size
    if wanted > len(gpus) and (gpus or cell.launcher == "docker"):
        raise EnvironmentNotReady(
            f"the report's cell needs {wanted} GPU(s), this machine shows {len(gpus)}", hint="Look with: sweeper doctor"
        )


def make_canary(source: Source, cell: Cell, folder: Path, say: Say) -> Path:
    """The canary of the report in `folder`/canary. Raises SweeperError with what was missing."""
    out = folder / "canary"
    if source.recipe.kind == "speaking":
        from sweeper.canary.speaking import unpack

        return unpack(out)
    config = folder / "canary-config.json"
    config.write_text(json.dumps(source.recipe.config), "utf-8")
    say(f"building the canary ({source.recipe.quant}) in {out}")
    if not needs.missing():
        from sweeper.canary.make import Order, make

        r = source.recipe
        make(Order(like=str(config), quant=r.quant, out=out, layers=r.layers, mtp=r.mtp, golden=r.golden))
        return out
    tool = folder / builder.NAME
    tool.write_bytes(builder.pack())
    done = _built(cell, folder, canary_arguments(source.recipe, config.name, out.name))
    if done.returncode or not (out / "config.json").is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentNotReady(
            f"the canary could not be built: {last}",
            hint="It needs torch and transformers 5: pip install 'sweeper[canary]'",
        )
    return out


def _built(cell: Cell, folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The builder run by the engine's own Python, which has torch. Our copy of it, never the archive's."""
    import os

    words = [builder.NAME, *arguments]
    if cell.launcher == "docker":
        user = f"{os.getuid()}:{os.getgid()}"
        argv = ["docker", "run", "--rm", "-u", user, "-e", "HOME=/tmp", "-e", "USER=canary", "-v", f"{folder}:/report"]
        argv += ["-w", "/report", "--entrypoint", "python3", str(cell.image), *words]
    else:
        argv = [str(cell.python), *words]
    try:
        return subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, timeout=BUILD_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentNotReady(f"building the canary took more than {BUILD_S:.0f} s") from None
    except OSError as error:
        raise EnvironmentNotReady(f"cannot execute {argv[0]}: {error.strerror}") from None


def matrix_of(source: Source, cell: Cell) -> Matrix:
    """One cell, one launch, a short load: enough to see the failure, too little to rank."""
    return Matrix(
        name="reproduce",
        path=str(source.path),
        cells=(cell,),
        author_excluded=(),
        workloads=(Workload(isl=32, osl=64, concurrency=(1,), window_s=2.0, warmup_s=0.2),),
        policy=Policy(
            launches=1, deadlines=Deadlines(ready_s=600.0, first_answer_s=180.0, measure_s=120.0, stop_s=20.0)
        ),
        hardware=Hardware(),
        title=f"Reproduction of {source.manifest.get('trial', '-')}",
    )


def compare(source: Source, cell: Cell, verdict: Verdict, here: Mapping[str, str]) -> dict[str, Any]:
    """`result`: reproduced, not reproduced, different; with what was expected, seen, and done with other versions.

    `here`: GPU, driver and image digest of this machine, by the names of the manifest's `seen_with`.
    """
    expected, cause = source.manifest["expected"], verdict.cause
    seen = judged(verdict)
    now = {**here, **versions_of(cell, cell.image if cell.launcher == "docker" else None)}
    if verdict.effective and verdict.effective.engine_version:
        now["engine version"] = verdict.effective.engine_version
    hows = [
        f"{key}: {expected.get(key)} there, {seen[key]} here"
        for key in ("cause", "phase")
        if expected.get(key) != seen[key]
    ]
    return {
        "schema": 1,
        "result": _result(expected, seen, verdict),
        "trial": source.manifest.get("trial"),
        "expected": {key: expected.get(key) for key in ("outcome", "phase", "cause", "findings")},
        "seen": seen,
        "differs": hows,
        "line": cause.line.strip() if cause and cause.line else None,
        "means": cause.means if cause else None,
        "versions": differences({k: str(v) for k, v in source.manifest.get("seen_with", {}).items()}, now),
    }


def _result(expected: Mapping[str, Any], seen: Mapping[str, Any], verdict: Verdict) -> str:
    if expected.get("cause"):
        again = seen["cause"] == expected["cause"]
    else:
        again = not set(seen["findings"]).isdisjoint(expected.get("findings") or ())
    if again:
        return "reproduced"
    return "not reproduced" if verdict.outcome is Outcome.PASS else "different"


def environment_problem(source: Source, verdict: Verdict) -> SweeperError | None:
    """Where the trial says something about this machine only."""
    cause = verdict.cause
    wanted = source.manifest["expected"].get("cause")
    if verdict.outcome in (Outcome.INCONCLUSIVE, Outcome.ABORTED, Outcome.SKIP) or (
        cause is not None and cause.id in NOT_THERE and cause.id != wanted
    ):
        told = f"{cause.id}: {cause.means}" if cause else verdict.outcome.value
        return EnvironmentNotReady(
            f"the reproducer could not run here: {told}", hint=(cause.try_ or None) if cause else None
        )
    return None


def as_text(found: Mapping[str, Any]) -> str:
    """What a person reads."""
    cause = found["seen"]["cause"] or found["seen"]["outcome"]
    lines = [f"{found['result']}: {cause} in phase {found['seen']['phase']}"]
    if found["result"] == "not reproduced":
        lines[0] = f"not reproduced: the cell passed here; the report says {found['expected']['cause']}"
    lines += [f"  differs   {how}" for how in found["differs"]]
    lines += [f"  means     {found['means']}"] if found["means"] else []
    lines += [f"  line      {found['line'][:300]}"] if found["line"] else []
    lines += [f"  version   {item['what']}: {item['then']} there, {item['now']} here" for item in found["versions"]]
    lines += [f"  run       {found['run']}"] if found.get("run") else []
    return "\n".join(lines) + "\n"
