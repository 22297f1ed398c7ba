"""The files of a report, redacted, and the preview of what would leave the machine."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeper import __version__
from sweeper.bugreport import builder, issue, script
from sweeper.bugreport.case import Case, judged, verdict_json, zipped
from sweeper.bugreport.recipe import Recipe, canary_arguments, portable, recipe_of
from sweeper.bugreport.redaction import Private, Redactor, leaks
from sweeper.bugreport.templates import Form, form_for
from sweeper.core import codec
from sweeper.core.effective import EffectiveConfig
from sweeper.core.errors import SweeperError
from sweeper.core.values import Cell, LaunchPlan, Unsupported
from sweeper.core.verdicts import Verdict
from sweeper.diagnosis.signature import load_signatures
from sweeper.engines import registry

SCHEMA = 1
"""Of the archive. A reader refuses a higher number; keys may be added without raising it."""


_ENGINE_ENV = (
    "VLLM_", "SGLANG_", "SGL_", "CUDA_", "NCCL_", "TORCH", "PYTORCH_", "TRITON_", "FLASHINFER_", "OMP_", "MKL_",
    "HF_HUB_", "TRANSFORMERS_", "NVIDIA_", "LD_LIBRARY_PATH", "PYTHON", "GLOO_", "UCX_", "CUBLAS", "CUTE_", "TLLM_",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report that is ready to be written. `files`: by path inside the archive's one folder."""

    folder: str
    files: Mapping[str, bytes]
    counts: Mapping[str, int]
    form: Form
    recipe: Recipe
    title: str


def compose(case: Case, private: Private, wanted: str | None = None) -> Report:
    """Raises UsageError for an unknown form, SweeperError where something private is still in a file."""
    known = private.and_of([case.log, json.dumps(codec.dump(case.cell)), json.dumps(dict(case.launch))])
    redactor = Redactor(known)
    clean = _redacted(case, redactor)
    cause = clean.verdict.cause
    form = form_for(cause.id if cause else None, clean.effective.get("engine") or clean.cell.engine, wanted)
    recipe = recipe_of(clean)
    files = _texts(clean, form, recipe, redactor)
    left = [leak for name, data in files.items() for leak in leaks(known, name, data.decode())]
    if left:
        raise SweeperError(f"not written, redaction is incomplete: {left[0]}", hint="Hide it by name: --hide WORD")
    files["server.log.gz"] = zipped(files.pop("server.log").decode())
    if recipe.kind != "none":
        files[f"reproducer/{builder.NAME}"] = builder.pack()
    counts = {kind: number for kind, number in sorted(redactor.counts.items()) if number}
    files["manifest.json"] = _manifest(clean, form, recipe, files, counts)
    return Report(
        folder=_folder(clean), files=dict(sorted(files.items())), counts=counts, form=form, recipe=recipe,
        title=issue.title(clean, form),
    )  # fmt: skip


def _redacted(case: Case, redactor: Redactor) -> Case:
    """Every text of the case through the redactor, once."""
    return replace(
        case,
        cell=codec.load(Cell, redactor.data(codec.dump(case.cell))),
        verdict=codec.load(Verdict, redactor.data(verdict_json(case.verdict))),
        host=_host(redactor.data(case.host)),
        launch=redactor.data(_launch(case.launch)),
        log=redactor.text(case.log),
        requested=redactor.data(case.requested),
        effective=redactor.data(case.effective),
        gpus=tuple(redactor.text(name) for name in case.gpus),
        rows=tuple(replace(row, label=redactor.text(row.label), detail=redactor.text(row.detail)) for row in case.rows),
        model_config=None if case.model_config is None else redactor.data(case.model_config),
    )


def _launch(launch: Mapping[str, Any]) -> dict[str, Any]:
    """Without process ids, and with the part of the environment that an engine looks at."""
    kept = {key: value for key, value in launch.items() if key not in ("pid", "container_id", "gpus")}
    if "env" in kept:
        kept["env"] = {name: value for name, value in kept["env"].items() if name.startswith(_ENGINE_ENV)}
    return kept


def _host(host: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing about a kernel: disks, bus ids, other people's processes."""
    boards = [
        {k: v for k, v in b.items() if k not in ("uuid", "bus_id", "processes", "mig_slices")}
        for b in host.get("gpus") or []
    ]
    kept = {key: value for key, value in host.items() if key not in ("disks", "gpus", "docker")}
    docker = host.get("docker") or {}
    return {**kept, "gpus": boards, "docker": {k: docker.get(k) for k in ("version", "storage", "gpu")}}


def _texts(case: Case, form: Form, recipe: Recipe, redactor: Redactor) -> dict[str, bytes]:
    cause = case.verdict.cause
    numbers = [c.line_no for c in (cause, *case.verdict.also) if c and c.line_no]
    files = {
        "README.md": _readme(case, form, recipe),
        "issue.md": issue.issue(case, form, recipe),
        "environment.txt": issue.environment(case) + "\n",
        "environment.json": _json({"host": case.host, "versions": case.versions, "launch": case.launch}),
        "command.txt": issue.command(case) + "\n",
        "diagnosis.json": _json({**verdict_json(case.verdict), "points": [], "log_cut": case.log_cut}),
        "configuration.json": issue.configuration_json(case),
        "log-excerpt.txt": issue.excerpt(case.log, numbers) + "\n",
        "cells.md": issue.table(case.rows) + "\n",
        "server.log": case.log,
    }
    if recipe.kind != "none":
        files |= _reproducer(case, recipe)
    # Texts put together from redacted parts once more: two harmless halves may make a secret.
    again = Redactor(redactor.private)
    joined = (".md", ".txt")
    return {name: (again.text(text) if name.endswith(joined) else text).encode() for name, text in files.items()}


def _reproducer(case: Case, recipe: Recipe) -> dict[str, str]:
    cell = portable(case)
    plan = _plan(cell)
    cause = case.verdict.cause
    config = recipe.config or _speaking_config()
    files = {
        "reproducer/cell.json": _json(codec.dump(cell)),
        "reproducer/canary-config.json": _json(config),
        "reproducer/canary.json": _json(
            {
                "kind": recipe.kind, "quant": recipe.quant, "layers": recipe.layers, "mtp": recipe.mtp,
                "golden": recipe.golden, "notes": list(recipe.notes),
                "arguments": canary_arguments(recipe, "canary-config.json", "canary"),
            }
        ),
    }  # fmt: skip
    if plan is not None:
        literals = _literals(case, cause.id if cause else None, cause.line if cause else None)
        files["reproducer/reproduce.sh"] = script.script(plan, recipe, cause, literals, case.verdict.phase.value)
    return files


def _plan(cell: Cell) -> LaunchPlan | None:
    native = cell.launcher == "process"
    plan = registry.get(cell.engine).plan(replace(cell, python="@PYTHON@") if native else cell)
    return None if isinstance(plan, Unsupported) else plan


def _literals(case: Case, cause: str | None, line: str | None) -> tuple[str, ...]:
    """What the signature that fits the evidence looks for; empty where no signature knows it."""
    if cause is None or line is None:
        return ()
    for signature in load_signatures():
        if signature.id == cause and signature.contains and all(text in line for text in signature.contains):
            return signature.contains
    return ()


def _speaking_config() -> dict[str, Any]:
    from sweeper.canary.speaking import speaking_dir

    return dict(json.loads((speaking_dir() / "config.json").read_text("utf-8")))


def _readme(case: Case, form: Form, recipe: Recipe) -> str:
    cause = case.verdict.cause
    lines = [
        f"# {issue.title(case, form)}", "",
        f"`issue.md` is the text for {form.project}: {form.tracker}", "",
        "| file | holds |", "| --- | --- |",
        "| environment.txt, environment.json | machine, boards, driver, versions, image digest |",
        "| command.txt | the exact command |",
        f"| diagnosis.json | the cause `{cause.id if cause else '-'}`, its line, what else was seen |",
        "| configuration.json | requested and effective configuration |",
        "| log-excerpt.txt, server.log.gz | the lines around the evidence; the whole log |",
        "| cells.md | the run's other cells: which work, which fail |",
    ]  # fmt: skip
    if recipe.kind != "none":
        start = (
            "IMAGE=... ./reproduce.sh"
            if portable(case).launcher == "docker"
            else "PYTHON=.../bin/python ./reproduce.sh"
        )
        lines += ["| reproducer/ | shows the failure on a small checkpoint, without the weights |", ""]
        lines += ["Reproduce it: `sweeper reproduce ARCHIVE`, or without sweeper `cd reproducer && " + start + "`", ""]
    return "\n".join([*lines, *recipe.notes, "", f"Written by sweeper {__version__}.", ""])


def _manifest(case: Case, form: Form, recipe: Recipe, files: Mapping[str, bytes], counts: Mapping[str, int]) -> bytes:
    facts = case.verdict.effective or EffectiveConfig()
    data = {
        "schema": SCHEMA,
        "sweeper": __version__,
        "trial": case.trial,
        "started_utc": case.started_utc,
        "for": form.name,
        "reproducer": recipe.kind,
        "expected": judged(case.verdict),
        "seen_with": {
            "engine": case.cell.engine,
            "engine version": facts.engine_version or case.cell.engine_version or "",
            "image digest": case.image_digest or "",
            "GPU": ", ".join(case.gpus) or "none",
            "driver": str(case.host.get("driver") or ""),
            **case.versions,
        },
        "redactions": dict(counts),
        "files": [
            {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(files.items())
        ],
    }
    return _json(data).encode()


def _folder(case: Case) -> str:
    cause = case.verdict.cause
    return f"sweeper-report-{case.cell.engine}-{cause.id if cause else 'finding'}-{case.trial}"


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n"


def preview(report: Report, target: str) -> str:
    """What would leave the machine: files with their sizes, and how much was hidden, by kind."""
    lines = [f"{report.title}", f"form: {report.form.project} ({report.form.tracker})", f"archive: {target}", ""]
    lines += [f"  {len(data):>10}  {name}" for name, data in report.files.items()]
    log = len(gzip.decompress(report.files["server.log.gz"]))
    lines += [
        f"  {sum(map(len, report.files.values())):>10}  bytes before packing; the log is {log} bytes unpacked",
        "",
    ]
    told = ", ".join(f"{number} {kind}" for kind, number in report.counts.items()) or "nothing"
    lines += [f"hidden: {told}"]
    lines += [f"reproducer: {report.recipe.kind}", *(f"  {note}" for note in report.recipe.notes)]
    return "\n".join([*lines, "Nothing is sent anywhere: the archive stays on this machine.", ""])
