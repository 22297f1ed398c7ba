"""Every fault and 100 healthy servers, through `sweeper check` over HTTP; prints the table.

    python -m benchmarks.check_faults [--healthy 100] [--work DIR] [--only TEXT] [--every-format] [--drawn]
                                     [--first-seed N]

Needs torch and transformers. Exit 1 when a fault is missed or a healthy server is accused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.check_faults.faults import CASES, Case
from benchmarks.check_faults.model import Faults, load
from benchmarks.check_faults.server import serving
from sweeper.canary.golden import FILE_NAME
from sweeper.canary.make import Order, make
from sweeper.checking import check_server
from sweeper.core.accuracy import wilson
from sweeper.core.numerics import MIN_TYPICAL, Check, Figures

QUANTS = ("bf16", "fp8", "fp8-block", "nvfp4")
HEALTHY_QUANTS = ("bf16", "fp8", "nvfp4")
DRAWN_QUANTS = ("bf16", "fp8", "fp8-block", "nvfp4", "nvfp4 weight-only")
DRAWN_SEEDS = 3
WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One server to check: a fault by its index in CASES, or None for a healthy one."""

    folder: Path
    quant: str
    seed: int
    fault: int | None = None
    tensor_parallel: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `check` said."""

    run: Run
    verdict: str
    figures: str
    reason: str
    seconds: float


def check(run: Run) -> Result:
    """One server, one check, in this process."""
    torch.set_num_threads(1)
    case = CASES[run.fault] if run.fault is not None else Case(name="healthy", make=Faults, tp=run.tensor_parallel)
    noise = replace(case.noise(run.seed), weight_only=run.quant.endswith("weight-only"))
    model = load(run.folder, case.make(), noise)
    begun = time.monotonic()
    with serving(model, seed=run.seed, strict=case.strict) as url:
        found = check_server(url, None, run.folder / FILE_NAME)
    reason = found.reasons[0] if found.reasons else ""
    return Result(run=run, verdict=found.verdict, figures=_figures(found), reason=reason,
                  seconds=time.monotonic() - begun)  # fmt: skip


def _figures(found: Check) -> str:
    groups = [group for group in found.groups.values() if group.positions]
    if not groups:
        return "- | - | -"
    typical = max((group.kl_typical or 0.0 for group in groups if group.positions >= MIN_TYPICAL), default=0.0)
    return f"{_largest(groups)} | {max(group.kl_topk or 0.0 for group in groups):.4f} | {typical:.1e}"


def _largest(groups: list[Figures]) -> str:
    return f"{max((group.shift or 0.0 for group in groups), key=abs):+.4f}"


def build(work: Path, drawn: bool) -> dict[str, list[Path]]:
    """Canaries of every format, made once: the speaking one, or `tiny` drawn from several seeds."""
    folders: dict[str, list[Path]] = {}
    for quant in QUANTS:
        orders = [Order(like="speaking", quant=quant, keep_weights=True, out=work / f"speaking-{quant}")]
        if drawn:
            orders = [
                Order(like="tiny", quant=quant, seed=seed, out=work / f"tiny-{quant}-{seed}")
                for seed in range(DRAWN_SEEDS)
            ]
        for order in orders:
            if not (order.out / FILE_NAME).is_file():
                make(order)
                print(f"built {order.out.name}", file=sys.stderr, flush=True)
        folders[quant] = [order.out for order in orders]
    return folders


def plan(
    folders: dict[str, list[Path]], healthy: int, only: str, every_format: bool, quants: tuple[str, ...], first: int
) -> list[Run]:
    """Faults, each in one of its formats by turns or in all; then healthy servers, a quarter of them as two ranks."""
    broken = [
        Run(folder=folders[quant][index % len(folders[quant])], quant=quant, seed=first + index, fault=index)
        for index, case in enumerate(CASES)
        for quant in (case.quants if every_format else [case.quants[index % len(case.quants)]])
        if only in case.name
    ]
    return broken + [_healthy(folders, quants[number % len(quants)], first + number) for number in range(healthy)]


def _healthy(folders: dict[str, list[Path]], quant: str, seed: int) -> Run:
    own = folders[quant.split()[0]]
    return Run(folder=own[seed % len(own)], quant=quant, seed=seed, tensor_parallel=2 if seed % 4 == 3 else 1)


def table(results: list[Result], quants: tuple[str, ...]) -> str:
    lines = [
        "| fault | format | verdict | largest NLL shift | largest KL | largest typical KL | first reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        if result.run.fault is not None:
            name = CASES[result.run.fault].name
            lines.append(f"| {name} | {result.run.quant} | {result.verdict} | {result.figures} | {result.reason} |")
    lines += [
        "",
        "| healthy servers | format | judged right | largest NLL shift | largest KL | largest typical KL |",
        "|---|---|---|---|---|---|",
    ]
    for quant in quants:
        own = [r for r in results if r.run.fault is None and r.run.quant == quant]
        if own:
            right = sum(result.verdict == "right" for result in own)
            figures = [max((r.figures.split(" | ")[part] for r in own), key=_size) for part in range(3)]
            lines.append(f"| {len(own)} | {quant} | {right} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _size(text: str) -> float:
    return abs(float(text)) if text != "-" else 0.0


def _rate(count: int, n: int) -> str:
    """With the 95 % Wilson interval."""
    interval = wilson(count, n)
    return f"{count} of {n}" + (f" ({100 * interval.low:.1f} to {100 * interval.high:.1f} %)" if interval else "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check_faults", description=__doc__)
    parser.add_argument("--healthy", type=int, default=100)
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    parser.add_argument("--every-format", action="store_true", help="every fault in every format (an hour)")
    parser.add_argument("--first-seed", type=int, default=0, help="seeds from here on: other roundings")
    parser.add_argument("--drawn", action="store_true", help="drawn weights (`tiny`, several seeds), not the speaking")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "sweeper-check-faults")
    args = parser.parse_args()
    begun = time.monotonic()
    quants = DRAWN_QUANTS if args.drawn else HEALTHY_QUANTS
    runs = plan(build(args.work, args.drawn), args.healthy, args.only, args.every_format, quants, args.first_seed)
    results = []
    with ProcessPoolExecutor(WORKERS) as pool:
        for result in pool.map(check, runs):
            results.append(result)
            name = "healthy" if result.run.fault is None else CASES[result.run.fault].name
            print(f"{len(results)}/{len(runs)} {name} {result.run.quant}: {result.verdict} {result.figures} "
                  f"{result.seconds:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
    print(table(results, quants))
    faults = [result for result in results if result.run.fault is not None]
    healthy = [result for result in results if result.run.fault is None]
    caught = sum(result.verdict in ("degraded", "garbage") for result in faults)
    false = sum(result.verdict != "right" for result in healthy)
    print(f"\n{_rate(caught, len(faults))} faults caught, {_rate(false, len(healthy))} healthy servers accused, "
          f"{time.monotonic() - begun:.0f} s")  # fmt: skip
    return 0 if caught == len(faults) and not false else 1


if __name__ == "__main__":
    raise SystemExit(main())
