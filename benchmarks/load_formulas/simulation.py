"""Arrivals of a server whose speed is known: serialised prefill, a fixed verifier step, several tokens per step.

    python benchmarks/load_formulas/simulation.py

prints, for three runs, the truth, our figure and what the formulas of other tools make of the same arrivals.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeper.core.windows import StreamTrace, sustained_window
from sweeper.core.windows_rivals import RIVALS

PATTERN = (3, 3, 2, 3, 3)
"""Tokens per step, over and over: acceptance length 2.8."""


@dataclass
class Server:
    """One step gives every decoding stream its next chunk; a prefill stops all decoding while it lasts."""

    prefill_s: float
    step_s: float
    pattern: Sequence[int] = PATTERN
    now: float = 0.0
    traces: list[StreamTrace] = field(default_factory=list)

    @property
    def per_stream(self) -> float:
        """True tokens per second of a decoding stream while no prompt is read."""
        return sum(self.pattern) / len(self.pattern) / self.step_s


@dataclass
class _Live:
    sent: float
    want: int
    stamps: list[float] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)


def run(
    server: Server, *, concurrency: int, lengths: Sequence[int], arrivals: Sequence[float] = ()
) -> list[StreamTrace]:
    """Closed loop with `concurrency` live streams; `arrivals` delays the first ones (a ramp)."""
    waiting = [(arrivals[i] if i < len(arrivals) else 0.0, want) for i, want in enumerate(lengths)]
    queue: list[_Live] = []
    live: list[_Live] = []
    done: list[_Live] = []
    now = 0.0
    while waiting or queue or live:
        while waiting and len(queue) + len(live) < concurrency and waiting[0][0] <= now:
            queue.append(_Live(sent=now, want=waiting.pop(0)[1]))
        if queue:
            stream = queue.pop(0)
            now += server.prefill_s
            stream.stamps.append(now)
            stream.totals.append(1)
            live.append(stream)
            continue
        if not live:
            now = waiting[0][0]
            continue
        now += server.step_s
        for number, stream in enumerate(list(live)):
            # Streams differ in phase, so that the mean holds at every instant.
            step = len(stream.stamps) + number
            got = min(stream.want, stream.totals[-1] + server.pattern[step % len(server.pattern)])
            stream.stamps.append(now)
            stream.totals.append(got)
            if got >= stream.want:
                live.remove(stream)
                done.append(stream)
    return [
        StreamTrace(sent_s=s.sent, stamps=s.stamps, totals=s.totals, ended_s=s.stamps[-1], requested=s.want)
        for s in done
    ]


def scenarios() -> dict[str, tuple[Server, int, list[int]]]:
    """The three columns of peers.md 3.3."""
    return {
        "C=1, 4 requests": (Server(prefill_s=2.0, step_s=0.017), 1, [821] * 4),
        "C=64, one wave": (Server(prefill_s=0.157, step_s=0.06), 64, [1024] * 64),
        "C=64, 640 requests": (Server(prefill_s=0.0075, step_s=0.06), 64, [1024] * 640),
    }


def figures(traces: list[StreamTrace], concurrency: int) -> dict[str, float | None]:
    """Ours first, then every rival formula."""
    window = sustained_window(traces, concurrency)
    ours = window.tokens(traces) / window.seconds if window else None
    return {"ours, all streams decoding": ours} | {name: formula(traces) for name, (formula, _) in RIVALS.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    names = list(scenarios())
    columns = {}
    for name, (server, concurrency, lengths) in scenarios().items():
        traces = run(server, concurrency=concurrency, lengths=lengths)
        truth = {"truth: one stream": server.per_stream, "truth: all together": server.per_stream * concurrency}
        columns[name] = truth | figures(traces, concurrency)
    print("| formula | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for row in columns[names[0]]:
        cells = [columns[name][row] for name in names]
        print(f"| {row} | " + " | ".join("-" if c is None else f"{c:,.1f}" for c in cells) + " |")


if __name__ == "__main__":
    main()
