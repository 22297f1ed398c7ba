"""The sections of an issue: what happened, where it says so, on what, and what else was tried."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sweeper.bugreport.case import Case, CellRow
from sweeper.bugreport.recipe import Recipe
from sweeper.bugreport.templates import Form
from sweeper.core.errors import UsageError
from sweeper.core.geometry import geometry_from_config
from sweeper.core.verdicts import Outcome

AROUND = 12
"""Lines of log shown before and after a line of evidence."""
_LONGEST = 2000

COLLECT = {
    "vllm": "vllm collect-env",
    "sglang": "python3 -m sglang.check_env",
    "flashinfer": "python -m flashinfer.collect_env",
    "cutlass": "nvidia-smi -q",
}


def issue(case: Case, form: Form, recipe: Recipe) -> str:
    """The whole text: a first line with the title, then the form's sections."""
    body = form.text.substitute(
        environment=environment(case),
        collect=COLLECT.get(form.name, "vllm collect-env"),
        summary=summary(case),
        command=command(case),
        reproduction=_reproduction(case, recipe),
        evidence=_evidence(case),
        expected=_expected(case),
        configuration=_configuration(case),
        table=f"All on {_boards(case)}.\n\n{table(case.rows)}",
        shapes=_shapes(case),
        location="Docker" if case.image or case.host.get("container") else "Bare-metal",
    )
    return f"{title(case, form)}\n\n{body.strip()}\n"


def title(case: Case, form: Form) -> str:
    cause = case.verdict.cause
    what = cause.id if cause else "; ".join(finding.id for finding in case.verdict.findings)
    where = " on " + case.gpus[0] if case.gpus else " on CPU"
    version = case.effective.get("version") or case.cell.engine_version
    return f"{form.title}{what}: {case.cell.label()}{where}" + (f" ({case.cell.engine} {version})" if version else "")


def summary(case: Case) -> str:
    """Outcome, phase, cause and its line number, in plain sentences."""
    verdict, cause = case.verdict, case.verdict.cause
    place = "on a canary checkpoint, before the real weights were loaded, " if case.on_canary else ""
    lines = [
        f"`{case.cell.label()}` with model `{case.cell.model}` on {_boards(case)}: {verdict.outcome} {place}in phase "
        f"`{verdict.phase}`" + (f", cause `{cause.id}`." if cause else ".")
    ]
    if cause and cause.means:
        lines.append(cause.means)
    if cause and cause.try_:
        lines.append(f"Known way around: {cause.try_}")
    if cause and cause.source:
        lines.append(f"The cause is known from: {cause.source}")
    lines += [finding.text for finding in verdict.findings]
    return "\n\n".join(lines)


def _boards(case: Case) -> str:
    return f"{len(case.gpus)} x {case.gpus[0]}" if case.gpus else str(case.host.get("cpu") or "a CPU")


def command(case: Case) -> str:
    return str(case.launch.get("by_hand") or "never launched: the canary failed first; see reproduce.sh")


def environment(case: Case) -> str:
    """Host, boards, image and versions, one fact a line; `-` where nothing is known."""
    host = case.host
    boards = host.get("gpus") or []
    facts: list[tuple[str, object]] = [
        ("engine", case.effective.get("engine") or case.cell.engine),
        ("engine version", case.effective.get("version") or case.cell.engine_version),
        ("image", case.image),
        ("image digest", case.image_digest),
        *((name, version) for name, version in case.versions.items()),
        *((f"GPU {board.get('index')}", _board(board)) for board in boards),
        *(
            (f"link {link.get('a')}-{link.get('b')}", f"{link.get('path')}, P2P {link.get('p2p')}")
            for link in host.get("links") or []
        ),
        ("driver", host.get("driver")),
        ("CUDA of the driver", host.get("cuda")),
        ("CPU", f"{host.get('cpu')}, {host.get('cores')} cores, {host.get('numa_nodes')} NUMA node(s)"),
        ("memory", _gib(host.get("memory_bytes"))),
        ("shared memory", _gib(host.get("shm_bytes"))),
        ("system", f"{host.get('system')}, kernel {host.get('kernel')}"),
        ("WSL", host.get("wsl")),
        ("Docker", (host.get("docker") or {}).get("version")),
        ("sweeper", case.sweeper),
    ]
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name:<{width}}  {'-' if value is None else value}" for name, value in facts)


def _board(board: Mapping[str, object]) -> str:
    parts = [str(board.get("name") or "-"), f"sm {board.get('sm') or '-'}", _gib(board.get("memory_bytes"))]
    if board.get("power_limit_w"):
        parts.append(f"limit {board['power_limit_w']} W")
    return ", ".join(parts)


def _gib(size: object) -> str:
    return f"{size / 2**30:.1f} GiB" if isinstance(size, int | float) else "-"


def _reproduction(case: Case, recipe: Recipe) -> str:
    if recipe.kind == "none":
        return "None: " + " ".join(recipe.notes)
    first = "IMAGE=... ./reproduce.sh" if case.image else "PYTHON=/path/to/environment/bin/python ./reproduce.sh"
    text = (
        "```sh\nsweeper reproduce ARCHIVE      # the attached archive\n"
        f"# or, without sweeper, in its folder reproducer/:\n{first}\n```"
    )
    return "\n\n".join([text, *recipe.notes])


def _evidence(case: Case) -> str:
    cause = case.verdict.cause
    if cause is None or cause.line is None:
        end = "\n".join(case.log.splitlines()[-AROUND:])
        return (
            f"The last lines of the log (whole in `server.log.gz`):\n\n```text\n{end}\n```"
            if end
            else "No log was written."
        )
    text = excerpt(case.log, [cause.line_no] if cause.line_no else [], around=6) or cause.line.strip()
    return f"Line {cause.line_no or '-'} of the log (whole in `server.log.gz`):\n\n```text\n{text[: _LONGEST * 4]}\n```"


def excerpt(log: str, line_numbers: Sequence[int], around: int = AROUND) -> str:
    """Numbered lines around each of `line_numbers` (from 1); `...` where lines are left out."""
    lines = log.split("\n")
    chosen = sorted({n for at in line_numbers for n in range(at - around, at + around + 1) if 1 <= n <= len(lines)})
    out: list[str] = []
    for place, number in enumerate(chosen):
        if place and number != chosen[place - 1] + 1:
            out.append("   ...")
        mark = ">" if number in line_numbers else " "
        out.append(f"{mark}{number:>6}  {lines[number - 1].rstrip()[:_LONGEST]}")
    return "\n".join(out)


def _expected(case: Case) -> str:
    passed = [row.label for row in case.rows if row.outcome == Outcome.PASS]
    start = "A server that starts and answers in sense, as "
    return start + (f"`{passed[0]}` does on the same machine." if passed else "the command line asks for.")


def _configuration(case: Case) -> str:
    rows = [("field", "asked", "ran")]
    for key, asked in case.requested.items():
        ran = case.effective.get(key)
        if asked != "-" or ran:
            rows.append((key, asked, ran or "-"))
    return _markdown(rows)


def table(rows: Sequence[CellRow]) -> str:
    """The run's other cells: which work, which fail, and how."""
    head = ("cell", "outcome", "phase", "cause", "ran", "detail")
    body = [
        (("**this** " if r.is_this else "") + r.label, r.outcome, r.phase, r.cause, r.ran, r.detail[:160]) for r in rows
    ]
    return _markdown([head, *body])


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _shapes(case: Case) -> str:
    if case.model_config is None:
        return "not known"
    try:
        g = geometry_from_config(case.model_config)
    except UsageError as problem:
        return f"not known ({problem.message})"
    return (
        f"hidden {g.hidden}, {g.experts} experts, top-{g.top_k}, expert width {g.moe_intermediate}, heads {g.heads}/"
        f"{g.kv_heads} of {g.head_dim}, {case.cell.quantization or 'bf16'}, {case.cell.parallelism.label()}"
    )


def configuration_json(case: Case) -> str:
    """Requested, effective and everything the log proved."""
    facts = case.verdict.effective
    from sweeper.core import codec

    data = {
        "requested": dict(case.requested),
        "effective": dict(case.effective),
        "facts": codec.dump(facts) if facts else None,
        "findings": [finding.text for finding in case.verdict.findings],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n"
