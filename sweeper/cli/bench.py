"""`sweeper bench URL`: measure a server that is already up."""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli.argtypes import positive
from sweeper.cli.gpus import add_gpus
from sweeper.core.errors import EnvironmentNotReady, SweeperError, UsageError
from sweeper.core.presets import PRESETS, LoadResult, distinct, preset
from sweeper.core.values import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweeper.core.points import DecodePoint
    from sweeper.core.roofline import Reached
    from sweeper.probes.load.measure import WindowMeter


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="http://HOST:PORT of an OpenAI-compatible server")
    parser.add_argument("--preset", default="sustained-decode", help="one of: " + ", ".join(PRESETS))
    parser.add_argument("--concurrency", type=_numbers, metavar="N,N", help="live streams; one point each")
    parser.add_argument("--isl", type=positive, metavar="N", help="prompt length in tokens")
    parser.add_argument("--osl", type=positive, metavar="N", help="output length in tokens")
    parser.add_argument("--requests", type=positive, metavar="N", help="requests per point, all run to their end")
    parser.add_argument("--model", help="name in requests; default: the first that the server lists")
    parser.add_argument("--json", action="store_true", help="one object per point, one a line (schema 1)")
    parser.add_argument("--window", type=float, metavar="S", help="longest measuring window in seconds (default 30)")
    parser.add_argument(
        "--warmup", type=float, metavar="S", help="hidden round before each point (default 1 or 2; 0: none)"
    )
    parser.add_argument("--rate", type=float, metavar="R", help="open loop: R requests per second, Poisson arrivals")
    parser.add_argument("--waves", action="store_true", help="fixed waves: the next N wait for the slowest of the last")
    parser.add_argument("--chat", action=argparse.BooleanOptionalAction, help="/v1/chat/completions")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="model folder or tokenizer.json: sizes prompts, counts as a last resort",
    )
    parser.add_argument("--prompts", default=None, metavar="KIND", help="prose or code")
    parser.add_argument("--seed", type=int, help="of prompts and arrivals; default: drawn, so that no prompt is cached")
    parser.add_argument(
        "--stall", type=float, default=60.0, metavar="S", help="silence that ends a stream (default 60)"
    )
    parser.add_argument("--processes", type=positive, metavar="N", help="client processes (default: as needed)")
    parser.add_argument("--metrics", default="/metrics", metavar="PATH", help="of the server's counters; '' for none")
    parser.add_argument("--header", action="append", default=[], metavar="'K: V'", help="sent with every request")
    add_gpus(parser, "GPUs whose energy is read")
    parser.add_argument("--no-energy", action="store_true", help="do not read power")
    parser.add_argument(
        "--limit",
        metavar="model=M,gpu=G,tp=N",
        help="show the share of the speed of light: model folder or name, GPU, and quantization, tp, pp, dp, ep",
    )


def run(args: argparse.Namespace) -> int:
    from sweeper.core.presets_tables import render_preset_table
    from sweeper.core.windows_point import unmeasured

    chosen, judge = preset(args.preset), _limit(args.limit)
    limits: list[Reached | None] = []
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(2**31)
    total = LoadResult(points=[], requests=[])
    broken: SweeperError | None = None
    for workload in distinct(_changed(workload, args) for workload in chosen.workloads):
        try:
            part = _measure(args, workload)
        except SweeperError as error:
            # What was measured stays measured; a rung that the server refuses does not cost those after it.
            broken = error
            if isinstance(error, UsageError | EnvironmentNotReady) or len(chosen.workloads) == 1:
                break
            part = LoadResult(points=unmeasured(workload, args.seed, error.message), requests=[])
        part.points[:], found = judge(part.points)
        limits += found
        total.points.extend(part.points)
        total.requests.extend(part.requests)
        total.runs.extend(part.runs)
        if args.json:
            _print_json(part, found)
    if not args.json and (any(point.requests for point in total.points) or broken is None):
        print(render_preset_table(args.preset, {args.model or args.url: total}), end="")
        if args.limit is not None:
            from sweeper.benchlimits import lines

            print("\n" + "\n".join(lines(total.points, limits)))
    if broken:
        raise broken
    return 1 if any(point.invalid or point.errors for point in total.points) else 0


def _limit(text: str | None) -> Callable[[Sequence[DecodePoint]], tuple[list[DecodePoint], list[Reached | None]]]:
    """What holds points against a limit. Without one nothing is imported for it: start-up is part of the cost."""
    if text is None:
        return lambda points: (list(points), [None] * len(points))
    from sweeper.benchlimits import held, served

    what = served(text)
    return lambda points: held(points, what)


def _measure(args: argparse.Namespace, workload: Workload) -> LoadResult:
    from sweeper.probes.load.measure import LoadOptions, measure

    options = LoadOptions(
        headers=tuple(args.header),
        stall_s=args.stall,
        processes=args.processes,
        rate=args.rate,
        chat=args.chat,
        shape="waves" if args.waves else None,
        tokenizer=_tokenizer(args),
    )
    return measure(
        args.url,
        args.model,
        workload,
        metrics_path=args.metrics or None,
        seed=args.seed,
        on_progress=lambda text: print(text, file=sys.stderr),
        meter=_meter(args),
        options=options,
    )


def _tokenizer(args: argparse.Namespace) -> Path | None:
    """The one that was named, read once so that a wrong name is told before anything is measured."""
    from sweeper.probes.load.retokenise import load_tokenizer

    if args.tokenizer is not None:
        load_tokenizer(args.tokenizer)
    tokenizer: Path | None = args.tokenizer
    return tokenizer


def _meter(args: argparse.Namespace) -> WindowMeter | None:
    """GPUs of this machine, unless the server is on another and none were named."""
    from sweeper.probes.load.dialect import is_local
    from sweeper.probes.machine.meter import NoMeter, open_meter
    from sweeper.probes.machine.nvml import NoNvml, all_gpus

    if args.no_energy:
        return None
    if args.gpus is None and not is_local(args.url):
        return NoMeter("the server is on another machine (name GPUs of this one with --gpus)")
    try:
        gpus = args.gpus or all_gpus()
    except NoNvml as problem:
        return NoMeter(str(problem))
    return open_meter(gpus, hz=100.0 if args.preset == "energy-phases" else 20.0)


def _changed(workload: Workload, args: argparse.Namespace) -> Workload:
    given = {
        "concurrency": args.concurrency,
        "isl": args.isl,
        "osl": args.osl,
        "requests": args.requests,
        "window_s": args.window,
        "warmup_s": args.warmup,
        "prompts": args.prompts,
    }
    return replace(workload, **{name: value for name, value in given.items() if value is not None})


def _print_json(result: LoadResult, limits: Sequence[Reached | None]) -> None:
    import orjson

    from sweeper.core.windows_json import bench_object

    for point, limit in zip(result.points, limits, strict=True):
        print(orjson.dumps(bench_object(point, limit)).decode(), flush=True)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(positive(part) for part in text.split(",") if part)
    if not numbers:
        raise UsageError("--concurrency needs at least one number", hint="Example: --concurrency 1,16,64")
    return numbers
