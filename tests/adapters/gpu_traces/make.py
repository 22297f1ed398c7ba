"""Writes the traces beside it: what NVML returns on a 600 W board in each situation the judgement must tell apart.

    python tests/adapters/gpu_traces/make.py

Power wanders by 2 % around its level; the counter advances every 0.1 s, as boards do. Window: 12 s, sampled at 10 Hz.

`recorded-h200` is not made here: an H200 decoding at 16 streams for 6 s (docs/measured-h200.md), its UUID blanked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sweeper.core.gputrace import GpuFacts, GpuSample, GpuTrace, PowerSource
from sweeper.probes.machine.recorded import write_traces

HERE = Path(__file__).parent
SERVER_PID, STRANGER_PID = 4711, 31337
"""As the driver numbers them; inside a container the server knows itself by another number."""


def trace(
    *,
    watts: Callable[[float], float] = lambda t: 400.0,
    counter: Callable[[float, int], int | None] = lambda t, mj: mj,
    reasons: Callable[[float], int | None] = lambda t: 0,
    pids: Callable[[float], tuple[int, ...]] = lambda t: (SERVER_PID,),
    keep: Callable[[float], bool] = lambda t: True,
    power_known: bool = True,
    seconds: float = 12.0,
    gpus: int = 1,
    own: tuple[int, ...] | None = (SERVER_PID,),
    strangers: tuple[int, ...] = (),
    source: PowerSource = "instant",
    reported: Callable[[float], float] | None = None,
) -> GpuTrace:
    rng, step = np.random.default_rng(5), 0.02
    samples = []
    joules = 1_234_567.0
    for k in range(round((seconds + 1.0) / step)):
        t = k * step - 0.5
        wobble = 1 + 0.02 * float(np.sin(3.1 * t)) + float(rng.normal(0, 0.003))
        joules += watts(t) * wobble * step
        if k % 5:
            continue
        if not keep(t):
            continue
        for gpu in range(gpus):
            samples.append(
                GpuSample(
                    t_s=round(100 + t, 3),
                    gpu=gpu,
                    power_w=round((reported or watts)(t) * wobble, 1) if power_known else None,
                    energy_mj=counter(t, round(joules * 1000)),
                    sm_mhz=2400 - round(600 * bool((reasons(t) or 0) & 0x68)),
                    mem_mhz=13365,
                    temp_c=round(60 + t / 2),
                    reasons=reasons(t),
                    used_bytes=80 * 2**30 + round(2**20 * t),
                    pids=pids(t) if k % 50 == 0 else None,
                )
            )
    facts = tuple(
        GpuFacts(
            gpu=str(g),
            name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
            power_limit_w=600.0,
            memory_bytes=97887 * 2**20,
            power_source=source,
        )
        for g in range(gpus)
    )
    return GpuTrace(
        gpus=facts, samples=tuple(samples), window_s=(100.0, 100.0 + seconds), own_pids=own, strangers=strangers
    )


def all_traces() -> dict[str, GpuTrace]:
    return {
        "steady": trace(),
        "two-gpus": trace(gpus=2),
        "power-cap": trace(watts=lambda t: 596.0, reasons=lambda t: 0x04),
        "thermal-software": trace(reasons=lambda t: 0x20 if t > 8 else 0),
        "thermal-hardware": trace(reasons=lambda t: 0x48 if t > 10 else 0x04),
        "power-brake": trace(reasons=lambda t: 0x88 if 5 < t < 7 else 0),
        "slowdown-without-cause": trace(reasons=lambda t: 0x08 if t > 6 else 0),
        "no-reasons": trace(reasons=lambda t: None),
        "missing-counter": trace(counter=lambda t, mj: None),
        "wrap-32-bit": trace(counter=lambda t, mj: (mj + 2**32 - 1_237_000_000) % 2**32),
        "counter-jump": trace(counter=lambda t, mj: mj + (900_000_000 if t > 6 else 0)),
        "small-jump": trace(counter=lambda t, mj: mj + (400_000 if t > 6 else 0)),
        "counter-reset": trace(counter=lambda t, mj: mj if t < 6 else mj - 1_234_000_000),
        "counter-frozen": trace(counter=lambda t, mj: 1_234_567_000),
        "counter-off-by-half": trace(counter=lambda t, mj: mj - round((mj - 1_234_567_000) * 0.43)),
        "foreign-process": trace(pids=lambda t: (SERVER_PID, STRANGER_PID) if t > 4 else (SERVER_PID,)),
        "foreign-process-owner-unknown": trace(
            pids=lambda t: (SERVER_PID, STRANGER_PID) if t > 4 else (SERVER_PID,), own=None
        ),
        "pids-of-another-namespace": trace(own=(12, 13)),
        "foreign-process-before-the-launch": trace(
            pids=lambda t: (SERVER_PID, STRANGER_PID), own=(12, 13), strangers=(STRANGER_PID,)
        ),
        "sampling-gap": trace(keep=lambda t: not 3 < t < 7),
        "short-window": trace(seconds=1.0),
        "short-window-mean-power": trace(seconds=1.0, source="average"),
        "mean-power-lags": trace(seconds=6.0, source="average", reported=lambda t: 400.0 * min(1.0, 0.5 + t / 4)),
        "no-power": trace(power_known=False),
        "nothing": trace(power_known=False, counter=lambda t, mj: None),
    }


if __name__ == "__main__":
    for name, made in all_traces().items():
        write_traces(HERE / f"{name}.jsonl.gz", [made])
