"""Energy and machine state of one measuring window, judged from a recorded GPU trace.

Energy is the difference of the NVML total-energy counters of the cell's GPUs, held against the power integrated over
the same window. A counter may be absent, wrap at 32 bits of millijoules (4.29 MJ, two hours at 600 W), be reset, or
jump; each is told apart from the load by what the GPU can draw physically. Rules and thresholds: docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sweeper.core.gputrace import (
    HW_POWER_BRAKE,
    HW_SLOWDOWN,
    HW_THERMAL,
    SW_POWER_CAP,
    SW_THERMAL,
    GpuSample,
    GpuTrace,
)
from sweeper.core.points import Energy

AGREEMENT = 0.05
"""Largest accepted difference between counter and integrated power, as a share of the power's."""
PERIODS = 20
"""A window shorter than this many update periods of the counter has an edge error above 5 %."""
CAP_SHARE = 0.05
SLOWDOWN_SHARE = 0.01
"""Share of samples from which a reason names the window."""
WRAP_MJ = 2**32
HARDWARE = "hardware slowdown in"
THERMAL = "thermal slowdown in"
FOREIGN = "foreign process on the cell's GPUs: pid"
"""How the causes begin that keep a window out of a ranking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineWindow:
    """What became of the GPUs during one window.

    `invalid` names the causes that keep the window out of a ranking; `notes` what a reader should know besides.
    """

    energy: Energy
    seconds: float
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    power_cap_share: float | None = None
    """Share of samples under the software power cap; None: the driver gave no reasons."""
    thermal_share: float | None = None
    slowdown_share: float | None = None
    sm_mhz: tuple[int, int] | None = None
    """Lowest and highest SM clock seen."""
    mem_mhz: tuple[int, int] | None = None
    temp_c: tuple[int, int] | None = None
    memory_peak_bytes: int | None = None
    """Sum over GPUs of each one's highest use."""
    foreign_pids: tuple[int, ...] = ()
    samples_per_s: float | None = None
    """Per GPU."""


@dataclass(frozen=True, slots=True)
class _GpuEnergy:
    joules: float | None
    problem: str | None = None
    note: str | None = None


def judge_window(trace: GpuTrace) -> MachineWindow:
    """State, energy and validity of a recorded window."""
    if trace.why or not trace.gpus:
        why = trace.why or "no GPU belongs to this cell"
        return MachineWindow(energy=unmetered(why, idle_w=trace.idle_w), seconds=trace.seconds)
    per_gpu = [_gpu_energy(trace, gpu) for gpu in range(len(trace.gpus))]
    inside = [s for s in trace.samples if trace.window_s[0] <= s.t_s <= trace.window_s[1]]
    shares = _reason_shares(inside)
    foreign = _foreign(trace, inside)
    invalid = _causes(shares, foreign)
    return MachineWindow(
        energy=_energy(trace, per_gpu, state=_state(shares, bool(foreign)), invalid=invalid),
        seconds=trace.seconds,
        invalid=invalid,
        notes=_notes(per_gpu, shares),
        power_cap_share=shares["cap"],
        thermal_share=shares["thermal"],
        slowdown_share=shares["slowdown"],
        sm_mhz=_range(s.sm_mhz for s in inside),
        mem_mhz=_range(s.mem_mhz for s in inside),
        temp_c=_range(s.temp_c for s in inside),
        memory_peak_bytes=_memory_peak(trace, inside),
        foreign_pids=foreign,
        samples_per_s=len(inside) / len(trace.gpus) / trace.seconds if trace.seconds > 0 else None,
    )


def unmetered(why: str, *, idle_w: float | None = None) -> Energy:
    """Energy of a window that nobody could meter."""
    return Energy(joules=None, joules_per_1k_tokens=None, mean_w=None, power_share=None, idle_w=idle_w, why=why)


def _energy(trace: GpuTrace, per_gpu: Sequence[_GpuEnergy], *, state: str | None, invalid: Sequence[str]) -> Energy:
    problems = tuple(dict.fromkeys(g.problem for g in per_gpu if g.problem))
    notes = tuple(dict.fromkeys(g.note for g in per_gpu if g.note))
    known = [g.joules for g in per_gpu if g.joules is not None]
    joules = sum(known) if len(known) == len(per_gpu) else None
    mean_w = joules / trace.seconds if joules is not None and trace.seconds > 0 else None
    limits = [g.power_limit_w for g in trace.gpus if g.power_limit_w]
    whole = len(limits) == len(trace.gpus)
    return Energy(
        joules=joules,
        joules_per_1k_tokens=1000 * joules / trace.tokens if joules is not None and trace.tokens else None,
        mean_w=mean_w,
        power_share=mean_w / sum(limits) if mean_w is not None and whole else None,
        idle_w=trace.idle_w,
        state="invalid" if problems else state,
        why="; ".join((*problems, *invalid, *notes)) or None,
    )


def _gpu_energy(trace: GpuTrace, gpu: int) -> _GpuEnergy:
    """Joules of one GPU over the window: the counter, unless only the integrated power can be trusted."""
    name = f"GPU {trace.gpus[gpu].gpu}"
    power = [(s.t_s, s.power_w) for s in trace.samples if s.gpu == gpu and s.power_w is not None]
    counter = [(s.t_s, s.energy_mj) for s in trace.samples if s.gpu == gpu and s.energy_mj is not None]
    integrated, gap = integrate(power, trace.window_s)
    if gap is not None:
        return _GpuEnergy(None, f"{name}: no sample for {gap:.1f} s of a {trace.seconds:.1f} s window")
    if not counter:
        if integrated is None:
            return _GpuEnergy(None, f"{name}: neither an energy counter nor power readings")
        return _GpuEnergy(integrated, note=f"{name}: no energy counter; power integrated")
    steps, problem = _unwrap(counter, trace.gpus[gpu].power_limit_w)
    if problem:
        return _GpuEnergy(None, f"{name}: {problem}")
    changes = _changes(steps)
    period = (changes[-1][0] - changes[0][0]) / (len(changes) - 1) if len(changes) > 1 else None
    if period is None or trace.seconds < PERIODS * period:
        return _short(name, trace, period, integrated)
    joules = (_at(changes, trace.window_s[1]) - _at(changes, trace.window_s[0])) / 1000
    return _cross_checked(
        name, joules, integrated, lags=trace.gpus[gpu].power_source == "average" and trace.seconds < 10
    )


def _short(name: str, trace: GpuTrace, period: float | None, integrated: float | None) -> _GpuEnergy:
    """The counter did not advance often enough; the integrated power stands in when it can follow the load."""
    if period is None:
        return _GpuEnergy(None, f"{name}: the energy counter did not advance in {trace.seconds:.1f} s")
    note = f"{name}: window of {trace.seconds:.2f} s is under {PERIODS} update periods of the counter ({period:.2f} s)"
    if integrated is None or any(g.power_source == "average" for g in trace.gpus):
        return _GpuEnergy(None, note)
    return _GpuEnergy(integrated, note=f"{note}; power integrated")


def _cross_checked(name: str, joules: float, integrated: float | None, *, lags: bool) -> _GpuEnergy:
    if integrated is None:
        return _GpuEnergy(joules, note=f"{name}: no power readings to hold the counter against")
    if abs(joules - integrated) <= AGREEMENT * integrated:
        return _GpuEnergy(joules)
    differ = f"energy counter {joules:.1f} J, integrated power {integrated:.1f} J"
    if lags:
        return _GpuEnergy(joules, note=f"{name}: {differ}; power is a one-second mean, too slow for this window")
    return _GpuEnergy(None, f"{name}: {differ}, more than {AGREEMENT:.0%} apart")


def _unwrap(series: Sequence[tuple[float, int]], limit_w: float | None) -> tuple[list[tuple[float, int]], str | None]:
    """The counter without 32-bit wraps, or why it cannot be used.

    Between two samples a GPU can draw 1.5 times its limit (2 kW when unknown); the counter may be a second behind.
    """
    most_w = 1.5 * limit_w if limit_w else 2000.0
    out, offset = [series[0]], 0
    for (t0, before), (t1, after) in pairwise(series):
        bound_mj = most_w * (t1 - t0 + 1.0) * 1000
        step = after - before
        if step < 0 and 0 <= step + WRAP_MJ <= bound_mj:
            offset, step = offset + WRAP_MJ, step + WRAP_MJ
        if step < 0:
            return out, f"the energy counter went back by {-step / 1000:.1f} J: driver reload or reset"
        if step > bound_mj:
            return out, f"the energy counter jumped by {step / 1000:.1f} J in {t1 - t0:.2f} s"
        out.append((t1, after + offset))
    return out, None


def _changes(steps: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """The moments at which a stepping counter was first seen at a new value."""
    return [b for a, b in pairwise(steps) if b[1] != a[1]]


def _at(points: Sequence[tuple[float, float]], t: float) -> float:
    """Linear between points; beyond both ends with the slope of the whole.

    Not with the nearest segment's: a sampler that stalls sees one step late and the next one in time, and the two make
    a slope several times the true one.
    """
    (first_t, first_v), (last_t, last_v) = points[0], points[-1]
    slope = (last_v - first_v) / (last_t - first_t)
    if t <= first_t:
        return first_v + slope * (t - first_t)
    if t >= last_t:
        return last_v + slope * (t - last_t)
    k = next(i for i in range(len(points) - 1) if points[i + 1][0] >= t)
    (t0, v0), (t1, v1) = points[k], points[k + 1]
    return v0 + (v1 - v0) * (t - t0) / (t1 - t0)


def integrate(power: Sequence[tuple[float, float]], window: tuple[float, float]) -> tuple[float | None, float | None]:
    """Joules by trapezoids, nearest reading at the edges; or the longest gap, where it is too long to bridge."""
    opens, closes = window
    if closes <= opens or len(power) < 2:
        return None, None
    inside = [p for p in power if opens < p[0] < closes]
    edges = [(opens, _nearest(power, opens)), *inside, (closes, _nearest(power, closes))]
    gap = max(b[0] - a[0] for a, b in pairwise(edges))
    if gap > max(1.0, 0.1 * (closes - opens)):
        return None, gap
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(edges)), None


def _nearest(power: Sequence[tuple[float, float]], t: float) -> float:
    return min(power, key=lambda p: abs(p[0] - t))[1]


def _reason_shares(samples: Sequence[GpuSample]) -> Mapping[str, float | None]:
    reasons = [s.reasons for s in samples if s.reasons is not None]
    if not reasons:
        return {"cap": None, "thermal": None, "slowdown": None}
    thermal = [bool(r & (SW_THERMAL | HW_THERMAL)) for r in reasons]
    # HW_SLOWDOWN is also raised beside its own cause; on its own it is a slowdown without a named cause.
    slow = [bool(r & HW_POWER_BRAKE) or (bool(r & HW_SLOWDOWN) and not r & HW_THERMAL) for r in reasons]
    cap = [bool(r & SW_POWER_CAP) for r in reasons]
    return {k: sum(v) / len(reasons) for k, v in (("cap", cap), ("thermal", thermal), ("slowdown", slow))}


def _state(shares: Mapping[str, float | None], foreign: bool) -> str | None:
    if foreign:
        return "invalid"
    if shares["cap"] is None:
        return None
    for key, least, state in (
        ("slowdown", SLOWDOWN_SHARE, "hardware slowdown"),
        ("thermal", SLOWDOWN_SHARE, "thermal"),
        ("cap", CAP_SHARE, "power cap"),
    ):
        if (shares[key] or 0.0) >= least:
            return state
    return "fine"


def _causes(shares: Mapping[str, float | None], foreign: Sequence[int]) -> tuple[str, ...]:
    """Why the window must not be ranked: slowdowns and strangers. A power cap is normal and is only reported."""
    causes = [
        f"{words} {shares[key]:.0%} of the samples"
        for key, words in (("slowdown", HARDWARE), ("thermal", THERMAL))
        if (shares[key] or 0.0) >= SLOWDOWN_SHARE
    ]
    if foreign:
        causes.append(f"{FOREIGN} {', '.join(map(str, foreign))}")
    return tuple(causes)


def said_by_the_machine(cause: str) -> bool:
    """Whether a cause in `DecodePoint.invalid` came from a machine window, so that judging again may replace it."""
    return cause.startswith((HARDWARE, THERMAL, FOREIGN))


def _notes(per_gpu: Sequence[_GpuEnergy], shares: Mapping[str, float | None]) -> tuple[str, ...]:
    notes = [g.note for g in per_gpu if g.note]
    if (shares["cap"] or 0.0) >= CAP_SHARE:
        notes.append(f"power cap in {shares['cap']:.0%} of the samples")
    if shares["cap"] is None:
        notes.append("the driver gives no throttle reasons")
    return tuple(notes)


def _foreign(trace: GpuTrace, inside: Sequence[GpuSample]) -> tuple[int, ...]:
    """Processes on these GPUs that are not the cell's.

    The cell's own are known when the driver lists at least one of them. Where it lists none (a container's pids are not
    the host's) or nobody said, strangers are those that were there before the launch or came during the window.
    """
    seen = [(s.gpu, set(s.pids)) for s in inside if s.pids is not None]
    listed = {pid for _, pids in seen for pid in pids}
    own = set(trace.own_pids or ())
    if own & listed:
        return tuple(sorted(listed - own))
    first: dict[int, set[int]] = {}
    for gpu, pids in seen:
        first.setdefault(gpu, pids)
    at_opening = {pid for pids in first.values() for pid in pids}
    return tuple(sorted((listed & set(trace.strangers)) | (listed - at_opening)))


def _range(values: Iterable[int | None]) -> tuple[int, int] | None:
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None


def _memory_peak(trace: GpuTrace, inside: Sequence[GpuSample]) -> int | None:
    peaks = [
        max((s.used_bytes for s in inside if s.gpu == gpu and s.used_bytes is not None), default=None)
        for gpu in range(len(trace.gpus))
    ]
    return None if any(p is None for p in peaks) else sum(p for p in peaks if p is not None)
