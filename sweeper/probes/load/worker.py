"""One client process. Talks with its parent in lines: JSON in, JSON out, records as a pickle after a `done` line.

    parent                                  client
    {"target": {...}}                       {"event": "up"}
    {"plan": {...}}                         {"event": "ready"}          bodies built, connections open
    go                                      {"event": "open", "t": s}   every stream of the first wave has a token
    stop          (optional)                {"event": "close", "t": s}  fewer are live and none will follow
                                            {"event": "done", "bytes": n} + pickle

End of input ends the process, so it never outlives its parent. Imports stay few: start-up is part of a point's cost.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from typing import Any

from orjson import dumps, loads

from sweeper.probes.load.client import Client, Target
from sweeper.probes.load.feeder import Plan
from sweeper.probes.load.prompts import prompt
from sweeper.probes.priority import keep_time


class _Line:
    """Lines from a descriptor, without a reader thread."""

    def __init__(self, fd: int) -> None:
        self.fd, self.rest = fd, b""

    def next(self) -> bytes | None:
        while b"\n" not in self.rest:
            data = os.read(self.fd, 1 << 20)
            if not data:
                return None
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return line


def build_plan(spec: dict[str, Any]) -> Plan:
    """`spec`: words, cuts and lengths per request, first index, seed, kind, chat, base (all but the prompt).

    `texts` instead of words where the prompts are there already. `keep_text`: answers keep the text of their events.
    """
    bodies = []
    texts = spec.get("texts")
    for offset, words in enumerate(spec["words"]):
        index, cut = spec["first"] + offset, spec["cuts"][offset]
        text = texts[offset] if texts else prompt(words, seed=spec["seed"], index=index, kind=spec["kind"], cut=cut)
        asked = {"messages": [{"role": "user", "content": text}]} if spec["chat"] else {"prompt": text}
        length = spec["lengths"][offset]
        limits = dict.fromkeys(spec["length_fields"], length)
        bodies.append(dumps({**spec["base"], **limits, **asked}))
    return Plan(
        bodies=bodies,
        lengths=spec["lengths"],
        concurrency=spec["concurrency"],
        mode=spec["mode"],
        offsets=spec.get("offsets"),
        keep_text=spec.get("keep_text", False),
    )


def main() -> int:
    lines, out = _Line(0), sys.stdout.buffer
    keep_time()

    def say(message: dict[str, Any], payload: bytes = b"") -> None:
        out.write(dumps(message) + b"\n" + payload)
        out.flush()

    say({"event": "up"})
    client: Client | None = None
    # No cycles are made while tokens arrive; a collection in the middle would only delay stamps.
    gc.disable()
    while (line := lines.next()) is not None:
        if line == b"stop":  # crossed our `done` on the way
            continue
        order = loads(line)
        if "target" in order:
            if client is not None:
                client.close()
            client = Client(Target(**order["target"]), lambda what, t: say({"event": what, "t": t}))
            continue
        assert client is not None
        try:
            plan = build_plan(order["plan"])
            client.prepare(min(plan.concurrency, len(plan.bodies)))
        except OSError as error:
            say({"event": "failed", "why": str(error)})
            continue
        gc.collect()
        gc.freeze()
        say({"event": "ready"})
        if lines.next() != b"go":
            break

        def control() -> str:
            told = lines.next()
            return "stop" if told in (None, b"stop") else str(told)

        result = client.run(plan, control, 0)
        payload = pickle.dumps(result, protocol=5)
        say({"event": "done", "bytes": len(payload)}, payload)
    return 0


if __name__ == "__main__":
    sys.exit(main())
