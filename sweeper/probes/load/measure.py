"""Measure a server that is up: negotiate, warm up, run each concurrency, cross-check, build points."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sweeper.core.errors import SweeperError
from sweeper.core.points import DecodePoint, Energy
from sweeper.core.presets import PRESETS, LoadResult, Preset
from sweeper.core.values import Workload
from sweeper.core.windows import sustained_window, trace_of
from sweeper.core.windows_point import Asked, ClientCost, decode_point, energy_with_tokens, unmeasured
from sweeper.core.windows_server import CounterSample
from sweeper.probes.load.counters import Scraper
from sweeper.probes.load.dialect import Dialect, negotiate, open_dialect, target_of
from sweeper.probes.load.pool import Pool, RunResult
from sweeper.probes.load.repeats import decode_phase, total_energy, wave_figure
from sweeper.probes.load.retokenise import counted

EVENTS_PER_PROCESS = 40_000
"""Streamed events per second that one client process is planned for; it holds about 80,000."""
MAX_PROCESSES = 8


class WindowMeter(Protocol):
    """Energy of the cell's GPUs between two calls."""

    def start(self) -> None: ...

    def stop(self) -> Energy: ...


IDLE_S = 0.5
"""How long the idle power is read before the first request, where there is a meter that can."""


@dataclass(slots=True, kw_only=True)
class LoadOptions:
    """Beyond the workload. `rate` requests per second makes an open loop."""

    headers: tuple[str, ...] = ()
    first_s: float = 600.0
    stall_s: float = 60.0
    processes: int | None = None
    """None: one, more when it would be the bottleneck."""
    rate: float | None = None
    scrape_s: float = 1.0
    shape: str | None = None
    chat: bool | None = None
    tokenizer: Path | None = None
    """tokenizer.json or its folder: sizes prompts, and counts answers that nobody else counts."""


def measure(
    base_url: str,
    model: str | None,
    workload: Workload,
    *,
    metrics_path: str | None = "/metrics",
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
    meter: WindowMeter | None = None,
    options: LoadOptions | None = None,
) -> LoadResult:
    """Blocking; may be called from a thread. One point per concurrency of the workload.

    `model` None: the first that the server lists. `meter` None: energy stays None with a reason. Raises
    EnvironmentNotReady when nobody answers, UsageError for a model that is not served, SweeperError when the very first
    request is refused. A stream that fails later is data: it is in the point's `errors`.
    """
    options = options or LoadOptions()
    known = PRESETS.get(workload.preset)
    shape = options.shape or _shape(workload, known, options)
    chat = options.chat if options.chat is not None else bool(known and known.chat)
    base_url = _with_scheme(base_url)
    target = target_of(base_url, chat=chat, headers=options.headers, first_s=options.first_s, stall_s=options.stall_s)
    # Calls that share a server must not share prompts: the second would read the first one's prefix cache.
    salt = f"{seed}/{workload.name}/{','.join(map(str, workload.concurrency))}"
    dialect = open_dialect(base_url, model, chat=chat, kind=workload.prompts, seed=salt)
    if why := _does_not_fit(workload, shape, dialect.context):
        return LoadResult(points=unmeasured(workload, seed, why), requests=[])
    if (idle := getattr(meter, "idle_w", None)) is not None:
        idle(IDLE_S)
    with Pool(target) as pool:
        dialect = negotiate(pool, dialect, base_url, isl=workload.isl, osl=workload.osl, tokenizer=options.tokenizer)
        for note in dialect.notes:
            (on_progress or (lambda _: None))(note)
        job = _Job(
            pool=pool,
            dialect=dialect,
            workload=workload,
            shape=shape,
            seed=seed,
            options=options,
            meter=meter,
            scraper=lambda: Scraper(base_url.rstrip("/").removesuffix("/v1"), metrics_path, every_s=options.scrape_s),
            say=on_progress or (lambda _: None),
            phase_s=known.phase_s if known else 12.0,
        )
        result = LoadResult(points=[], requests=[])
        for concurrency in workload.concurrency:
            job.measure(concurrency, result)
        result.requests.extend({"run": asdict(figure)} for figure in result.runs)
        return result


def _does_not_fit(workload: Workload, shape: str, context: int | None) -> str | None:
    """Why the server would refuse these lengths; None when they fit or its context is not known."""
    osl = workload.osl + (shape == "phases")
    if context is None or workload.isl + osl <= context:
        return None
    return f"not sent: {workload.isl} prompt and {osl} output tokens exceed the served context of {context} tokens"


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


def _shape(workload: Workload, known: Preset | None, options: LoadOptions) -> str:
    if options.rate is not None:
        return "open"
    if known is not None and (known.shape != "window" or workload.requests is None):
        return known.shape
    return "closed" if workload.requests is not None else "window"


@dataclass(slots=True, kw_only=True)
class _Job:
    pool: Pool
    dialect: Dialect
    workload: Workload
    shape: str
    seed: int
    options: LoadOptions
    meter: WindowMeter | None
    scraper: Callable[[], Scraper]
    say: Callable[[str], None]
    phase_s: float

    def measure(self, concurrency: int, result: LoadResult) -> None:
        self._warm_up(concurrency)
        if self.shape == "runs":
            self._runs(concurrency, result)
        elif self.shape == "phases":
            self._phases(concurrency, result)
        else:
            self._point(concurrency, result)

    def _warm_up(self, concurrency: int) -> None:
        """A hidden round at this concurrency: kernels are compiled, clocks are up, connections are open.

        Prompts have the measured length to the token: Triton compiles anew when a length stops being, or starts being,
        a multiple of 16. Where the server itself counts, the twin that it was asked about had the prompt's length.
        Repetitions that are judged by their spread are preceded by a whole one.
        """
        if self.workload.warmup_s <= 0:
            return
        rate = self.dialect.tok_s or 20.0
        length = max(4, min(self.workload.osl, int(rate * self.workload.warmup_s)))
        if self.shape == "runs":
            length = self.workload.osl
        self.say(f"concurrency {concurrency}: warm-up, {length} tokens a stream")
        self.pool.run(self._plans(concurrency, concurrency, length, "closed"))

    def _plans(
        self,
        count: int,
        concurrency: int,
        osl: int,
        mode: str,
        offsets: list[float] | None = None,
    ) -> list[dict[str, Any]]:
        """Requests and streams dealt out over the client processes."""
        processes = min(self._processes(concurrency), concurrency, len(offsets) if offsets else concurrency)
        plans = []
        for number in range(processes):
            streams = concurrency // processes + (number < concurrency % processes)
            share = count * (number + 1) // processes - count * number // processes
            mine = offsets[number::processes] if offsets is not None else None
            share = len(mine) if mine is not None else max(share, streams)
            lengths = [osl] * share
            plans.append(self.dialect.plan(share, self.workload.isl, lengths, streams, mode, mine))
        return plans

    def _processes(self, concurrency: int) -> int:
        if self.options.processes:
            return self.options.processes
        expected = concurrency * (self.dialect.tok_s or 0.0)
        return max(1, min(MAX_PROCESSES, round(expected / EVENTS_PER_PROCESS)))

    def _point(self, concurrency: int, result: LoadResult) -> None:
        osl = self.workload.osl
        point, records = self._measured(concurrency, osl)
        if (
            self.shape == "window"
            and point.window_s is None
            and not point.errors
            and not any("ended early" in why for why in point.invalid)
        ):
            longer = _longer(records, osl)
            if longer is not None and self.dialect.context is not None:
                longer = min(longer, self.dialect.context - self.workload.isl)
            if longer is not None and longer > osl:
                self.say(f"concurrency {concurrency}: no common window at {osl} output tokens, again with {longer}")
                point, records = self._measured(concurrency, longer)
        if point.client_bound and not self.options.processes:
            more = 2 * min(self._processes(concurrency), concurrency)
            if more <= min(MAX_PROCESSES, concurrency):
                self.say(f"concurrency {concurrency}: the client was the bottleneck, again with {more} processes")
                self.options = replace(self.options, processes=more)
                point, records = self._measured(concurrency, point.osl or osl)
        result.points.append(point)
        result.requests.extend(_portable(records, concurrency))
        self.say(_progress_line(point))

    def _measured(self, concurrency: int, osl: int) -> tuple[DecodePoint, list[dict[str, Any]]]:
        count = self.workload.requests or concurrency
        mode, offsets, window_s = "closed", None, None
        if self.shape == "window":
            # A stream that is cut never tells its count, where that comes last.
            whole = self.dialect.source == "final_usage" or (self.dialect.source == "chunks" and self._counter())
            count, window_s = concurrency, None if whole else self.workload.window_s
        elif self.shape == "waves":
            mode = "waves"
        elif self.shape == "open":
            mode, offsets = "open", _poisson(count, self.options.rate or 1.0, self.seed)
        plans = self._plans(count, concurrency, osl, mode, offsets)
        run, samples, energy = self._run(plans, window_s, live=count if self.shape == "open" else concurrency)
        asked = Asked(
            preset=self.workload.preset,
            concurrency=concurrency,
            isl=self.workload.isl,
            osl=osl,
            seed=self.seed,
            rate=(self.options.rate or 1.0) if self.shape == "open" else None,
        )
        traces = [trace_of(record) for record in run.records]
        return decode_point(asked, traces, _cost(run), samples, energy, self._machine_invalid()), run.records

    def _counter(self) -> bool:
        """Whether the server exposes a counter of its tokens."""
        sample = self.scraper().take()
        return sample is not None and sample.generated is not None

    def _run(
        self, plans: Sequence[dict[str, Any]], window_s: float | None, *, live: int, whole: bool = False
    ) -> tuple[RunResult, list[CounterSample], Energy]:
        """Plans with scrapes and the meter around the window (`whole`: around everything). `live`: most at once."""
        scraper, span = self.scraper(), [0.0, 0.0]
        energy = Energy(joules=None, joules_per_1k_tokens=None, mean_w=None, power_share=None, why="no meter")
        held: list[Energy] = []

        def begin(_: float = 0.0) -> None:
            if self.meter is not None:
                span[0] = time.monotonic()
                self.meter.start()

        def end() -> None:
            if self.meter is not None and span[0] and not held:
                span[1] = time.monotonic()
                held.append(self.meter.stop())

        def opened(stamp: float) -> None:
            if not whole:
                begin(stamp)
            scraper.take()

        def closed() -> None:
            if not whole:
                end()
            scraper.take()

        def go() -> None:
            scraper.start()
            if whole:
                begin()

        run = self.pool.run(plans, window_s=window_s, on_go=go, on_open=opened, on_close=closed)
        end()
        scraper.stop()
        scraper.take()
        run.records = counted(run.records, scraper.samples, live, self.options.tokenizer)
        if held:
            energy = energy_with_tokens(held[0], [trace_of(r) for r in run.records], span[0], span[1])
        return run, scraper.samples, energy

    def _machine_invalid(self) -> tuple[str, ...]:
        """What the meter of the last window says against it."""
        window = getattr(self.meter, "window", None)
        return tuple(window.invalid) if window is not None else ()

    def _runs(self, concurrency: int, result: LoadResult) -> None:
        """P2: each repetition with its own reading, prefill included."""
        osl, records = self.workload.osl, []
        samples: list[CounterSample] = []
        costs = []
        energies: list[Energy] = []
        against: list[str] = []
        for number in range(self.workload.requests or 10):
            run, seen, energy = self._run(
                self._plans(concurrency, concurrency, osl, "closed"), None, live=concurrency, whole=True
            )
            samples += seen
            records += run.records
            costs.append(run)
            energies.append(energy)
            against += [why for why in self._machine_invalid() if why not in against]
            result.runs.append(wave_figure("e2e", concurrency, osl, [run], energy))
            self.say(f"run {number + 1}: {result.runs[-1].tokens:.0f} tokens in {result.runs[-1].seconds:.2f} s")
        asked = Asked(
            preset=self.workload.preset, concurrency=concurrency, isl=self.workload.isl, osl=osl, seed=self.seed
        )
        traces = [trace_of(record) for record in records]
        worst = max(costs, key=lambda c: c.cpu_share)
        point = decode_point(asked, traces, _cost(worst), samples, total_energy(energies, traces), against)
        result.points.append(point)
        result.requests.extend(_portable(records, concurrency))

    def _phases(self, concurrency: int, result: LoadResult) -> None:
        """P3: waves of one token, then waves of 1 + osl; what the second costs more is decoding osl tokens."""
        osl = self.workload.osl
        prefill = self._repeat(concurrency, 1)
        both = self._repeat(concurrency, 1 + osl)
        first = wave_figure("prefill", concurrency, osl, [prefill[0]], prefill[1], waves=prefill[2])
        full = wave_figure("both", concurrency, osl, [both[0]], both[1], waves=both[2])
        result.runs.extend([first, decode_phase(first, full, concurrency * osl)])
        asked = Asked(
            preset=self.workload.preset, concurrency=concurrency, isl=self.workload.isl, osl=1 + osl, seed=self.seed
        )
        traces = [trace_of(record) for record in both[0].records]
        point = decode_point(asked, traces, _cost(both[0]), both[3], both[1], self._machine_invalid())
        result.points.append(replace(point, osl=osl if point.osl == 1 + osl else point.osl))
        result.requests.extend(_portable(both[0].records, concurrency))
        self.say(_progress_line(point))

    def _repeat(self, concurrency: int, osl: int) -> tuple[RunResult, Energy, int, list[CounterSample]]:
        """Waves back to back for `phase_s`, which a trial wave turns into a number of waves."""
        trial = self.pool.run(self._plans(concurrency, concurrency, osl, "waves"))
        waves = max(3, min(2000, int(self.phase_s / max(trial.wall_s, 1e-3)) + 1))
        self.say(f"batch {concurrency}: {waves} waves of {osl} token{'s' if osl > 1 else ''}")
        plans = self._plans(concurrency * waves, concurrency, osl, "waves")
        run, samples, energy = self._run(plans, None, live=concurrency, whole=True)
        return run, energy, waves, samples


def _cost(run: RunResult) -> ClientCost:
    return ClientCost(cpu_s=run.cpu_s, cpu_share=run.cpu_share, lag_p99_s=run.lag_p99_s, wait_share=run.wait_share)


def _poisson(count: int, rate: float, seed: int) -> list[float]:
    import random

    rng, now, offsets = random.Random(f"{seed}/arrivals"), 0.0, []
    for _ in range(count):
        offsets.append(now)
        now += rng.expovariate(rate)
    return offsets


def _longer(records: Sequence[dict[str, Any]], osl: int) -> int | None:
    """Output length that gives a window: what the first stream wrote while the others read their prompts, plus 256."""
    traces = [trace_of(record) for record in records]
    if not all(t.stamps and t.stamps[-1] > t.stamps[0] for t in traces):
        return None
    spread = max(t.stamps[0] for t in traces) - min(t.stamps[0] for t in traces)
    fastest = max((t.tokens - t.totals[0]) / (t.stamps[-1] - t.stamps[0]) for t in traces)
    return int(1.3 * spread * fastest) + osl if sustained_window(traces, len(traces)) is None else None


def _portable(records: Sequence[dict[str, Any]], concurrency: int) -> list[dict[str, Any]]:
    """JSON-able, with stamps in microseconds since the request was sent, as whole numbers: small and exact enough."""
    out = []
    for record in records:
        sent = record["sent_s"]
        plain = {k: v for k, v in record.items() if k not in ("stamps", "totals", "texts")}
        plain["concurrency"] = concurrency
        plain["stamps_us"] = [round(1e6 * (stamp - sent)) for stamp in record["stamps"]]
        plain["totals"] = list(record["totals"])
        out.append(plain)
    return out


def _progress_line(point: DecodePoint) -> str:
    rate = f"{point.decode_tok_s:.1f} tok/s" if point.decode_tok_s is not None else "no decode rate"
    return f"concurrency {point.concurrency}: {rate}" + "".join(f"; {why}" for why in point.invalid)


__all__ = ["LoadOptions", "LoadResult", "SweeperError", "WindowMeter", "measure"]
