"""Makes failing logs out of healthy ones: a cause at a random place, then what layout accidents do to a log."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.core.verdicts import Phase
from sweeper.diagnosis.signature import Signature

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
LOGS = Path(__file__).parent / "logs"
READY = ("Application startup complete", "fired up and ready", "server is listening")
EARLY = (Phase.PLAN, Phase.LAUNCH)
CONSEQUENCES = (
    "(EngineCore_DP0 pid={pid}) ERROR 11-02 07:09:30 [core.py:842] EngineCore failed to start.",
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s)",
    "Process EngineCore_DP0:",
    "(APIServer pid=1) Traceback (most recent call last):",
    '(APIServer pid=1)   File "/srv/app/vllm/entrypoints/openai/api_server.py", line 703, in <module>',
    "(APIServer pid=1)     uvloop.run(run_server(args))",
)
_PROCESS = re.compile(r"^\((?:[A-Za-z][\w]*) pid=\d+\) ")


@dataclass(frozen=True)
class Mutant:
    """A log and the cause that was put into it."""

    id: str
    text: str
    how: str


def healthy_logs() -> list[list[str]]:
    """Own healthy logs, and the recorded ones where they lie beside the checkout."""
    paths = sorted(LOGS.glob("healthy-*.log"))
    if CORPUS.is_dir():
        import json

        labels = json.loads((CORPUS / "labels.json").read_text())
        paths += [CORPUS / name for name, label in labels.items() if label["verdict"] == "benign"]
    return [path.read_text(encoding="utf-8").splitlines() for path in paths]


def causes(signatures: Sequence[Signature]) -> list[tuple[Signature, str]]:
    """Every proof of a fatal root that one excerpt is enough for."""
    return [
        (entry, text)
        for entry in signatures
        if entry.severity == "fatal" and entry.rank == "root" and entry.min_count == 1
        for text in entry.examples.match
    ]


def mutant(draw: random.Random, logs: Sequence[list[str]], known: Sequence[tuple[Signature, str]]) -> Mutant:
    """One log. The same `draw` gives the same log."""
    entry, proof = draw.choice(known)
    lines = list(draw.choice(logs))
    ready = next((i for i, line in enumerate(lines) if any(word in line for word in READY)), len(lines) - 1)
    late = bool(entry.phases) and not any(phase in EARLY for phase in entry.phases)
    early = not entry.fatal_after_ready or any(phase in EARLY for phase in entry.phases)
    after = late or (not early and draw.random() < 0.5)
    stop = next((i for i, line in enumerate(lines) if "shutdown triggered" in line), len(lines))
    place = draw.randrange(ready + 1, stop + 1) if after and stop > ready else draw.randrange(1, ready + 1)
    body, how = _repeated(draw, proof)
    tail = _consequences(draw)
    log = [*lines[:place], *_interleaved(draw, body, lines[place : place + 6] if how == "ranks" else []), *tail]
    how += " " + ("after" if after else "before") + " ready"
    for change in (_coloured, _prefixed, _wrapped):
        if draw.random() < 0.3:
            log, note = change(draw, log)
            how += " " + note
    return Mutant(entry.id, "\n".join(log) + "\n", f"{how}: {proof[:120]}")


def _repeated(draw: random.Random, proof: str) -> tuple[list[list[str]], str]:
    rows = proof.split("\n")
    if len(rows) > 1 or draw.random() < 0.5:
        return [rows], "once"
    bare = _PROCESS.sub("", proof)
    if bare != proof and draw.random() < 0.7:
        ranks = draw.sample(range(8), draw.randrange(2, 8))
        return [[f"(Worker_TP{rank} pid={300 + rank}) {bare}"] for rank in ranks], "ranks"
    return [rows] * draw.randrange(2, 5), "repeated"


def _interleaved(draw: random.Random, body: list[list[str]], others: list[str]) -> list[str]:
    out: list[str] = []
    for block in body:
        out += block
        if others and draw.random() < 0.5:
            out.append(draw.choice(others))
    return [line for line in out if not any(word in line for word in (*READY, "shutdown", "HTTP/1.1"))]


def _consequences(draw: random.Random) -> list[str]:
    rows = [row.format(pid=draw.randrange(100, 9000)) for row in CONSEQUENCES]
    return rows[: draw.randrange(len(rows) + 1)] * draw.randrange(1, 4)


def _coloured(draw: random.Random, log: list[str]) -> tuple[list[str], str]:
    on, off, note = draw.choice(
        (("\x1b[0;36m", "\x1b[0;0m", "ESC"), ("^[[0;36m", "^[[0;0m", "caret"), ("[1;36m", "[0;0m", "lost ESC"))
    )
    out = []
    for line in log:
        match = _PROCESS.match(line)
        out.append(f"{on}{match[0].rstrip()}{off} {line[match.end() :]}" if match else line)
    return out, note


def _prefixed(draw: random.Random, log: list[str]) -> tuple[list[str], str]:
    kind = draw.choice(("compose", "kubernetes", "journal", "rank", "quote"))
    stamp = f"{draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}"
    prefix = {
        "compose": "vllm-1  | ",
        "kubernetes": f"2026-11-02T{stamp}.123456789Z stderr F ",
        "journal": f"Nov 02 {stamp} node7 docker[4711]: ",
        "rank": "[rank0]: ",
        "quote": "> ",
    }[kind]
    return [prefix + line for line in log], kind


def _wrapped(draw: random.Random, log: list[str]) -> tuple[list[str], str]:
    width = draw.choice((80, 100, 120, 132, 160))
    out = []
    for line in log:
        out += [line[at : at + width] for at in range(0, len(line), width)] or [""]
    return out, f"wrap {width}"
