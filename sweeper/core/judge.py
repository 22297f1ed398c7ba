"""Observations of one trial -> Verdict. Pure, so an old run can be judged again with newer rules.

Precedence: an interruption hides everything after it; then the earliest hard failure in phase order; then checks that
could not run (INCONCLUSIVE); then PASS. A clean log is health only if it was read to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from sweeper.core import observations as seen
from sweeper.core.canaries import BAD
from sweeper.core.effective import EffectiveConfig
from sweeper.core.observations import Observation
from sweeper.core.points import DecodePoint
from sweeper.core.sanity import summarise
from sweeper.core.values import Cell
from sweeper.core.verdicts import Cause, Finding, Outcome, Phase, Verdict

POLICY_VERSION = 3

REFUSALS = frozenset({"moe-backend-rejected", "max-model-len-exceeds-model", "pp-unsupported-with-spec"})
"""Answers of the engine, not crashes: failures in phase plan whatever the moment they were printed."""

MIN_ACCEPTANCE = 0.01
MIN_DRAFT_TOKENS = 200
"""Fewer drafted tokens say nothing about acceptance."""

T = TypeVar("T")


def judge(
    cell: Cell, cell_id: str, trial: str, observed: Sequence[Observation], *, elapsed_s: float | None = None
) -> Verdict:
    """One verdict. `observed` in the order in which it was seen."""
    effective = _effective(observed)
    outcome, phase, cause = _outcome(cell, observed)
    diagnosis = _last(observed, seen.Diagnosed)
    also = diagnosis.also if diagnosis else ()
    return Verdict(
        cell_id=cell_id,
        trial=trial,
        outcome=outcome,
        phase=phase,
        cause=cause,
        also=tuple(other for other in also if cause is None or other.id != cause.id),
        findings=_findings(observed),
        effective=effective,
        points=tuple(item.point for item in observed if isinstance(item, seen.PointMeasured)),
        elapsed_s=elapsed_s,
        policy_version=POLICY_VERSION,
    )


def _outcome(cell: Cell, observed: Sequence[Observation]) -> tuple[Outcome, Phase, Cause | None]:
    interrupted = _last(observed, seen.Interrupted)
    if interrupted:
        return Outcome.ABORTED, _reached(observed), Cause(id="interrupted", means=interrupted.why)
    unplanned = _last(observed, seen.NotPlanned)
    if unplanned:
        return Outcome.SKIP, Phase.PLAN, Cause(id=unplanned.cause_id, means=unplanned.reason)
    for rule in (_launch, _canary, _died, _deadline, _request, _sanity, _acceptance):
        failed = rule(cell, observed)
        if failed:
            return failed
    return _unproven(observed) or (Outcome.PASS, Phase.MEASURE, None)


Failed = tuple[Outcome, Phase, Cause] | None


def _launch(cell: Cell, observed: Sequence[Observation]) -> Failed:
    problem = _last(observed, seen.LaunchProblem)
    if not problem:
        return None
    return Outcome.FAIL, Phase.LAUNCH, Cause(id=problem.cause_id, means=problem.message, try_=problem.hint)


def _canary(cell: Cell, observed: Sequence[Observation]) -> Failed:
    for item in observed:
        if not isinstance(item, seen.CanaryChecked) or item.verdict not in BAD:
            continue
        text = ", ".join(f"{key} {value}" for key, value in item.figures.items() if value is not None)
        named = item.cause or Cause(
            id="garbage-output", means=f"The {item.where} check judged the numbers {item.verdict}: {text}."
        )
        return Outcome.FAIL, Phase.CANARY if item.where == "preflight" else Phase.SANITY, named
    return _weight_only(observed)


def _weight_only(observed: Sequence[Observation]) -> Failed:
    """Numbers that only activations in 4 bit would excuse, of a server whose log says that it has none."""
    ran = _last(observed, seen.EffectiveSeen)
    if ran is None or not ran.effective.weight_only:
        return None
    for item in observed:
        # A small checkpoint before the launch may have been given other kernels than the model whose log this is.
        if not isinstance(item, seen.CanaryChecked) or item.where == "preflight":
            continue
        strict = item.figures.get("weight_only")
        if strict and strict["verdict"] in BAD:
            means = (
                f"The numbers are {strict['verdict']} for kernels that keep activations in 16 bit, as the log says of "
                f"these: {'; '.join(strict['reasons'])}."
            )
            return Outcome.FAIL, Phase.SANITY, Cause(id="garbage-output", means=means)
    return None


def _died(cell: Cell, observed: Sequence[Observation]) -> Failed:
    fatal = _last(observed, seen.FatalLine)
    exited = _last(observed, seen.ServerExited)
    died = exited is not None and not exited.by_us
    if not (fatal or died):
        return None
    phase = fatal.phase if fatal else exited.phase if exited else Phase.LAUNCH
    cause = _diagnosed_cause(observed)
    if cause is None and fatal:
        cause = Cause(id=fatal.id, means="", line_no=fatal.line_no, line=fatal.line)
    if cause is None:
        code = exited.code if exited else None
        cause = Cause(id="unknown-exit", means=f"The server exited with code {code} and no signature explains it.")
    if exited is not None and exited.oom_killed and cause.id == "unknown-exit":
        # A killed process says nothing in its log; the kernel and Docker do.
        cause = replace(cause, id="host-oom-kill", means=_OOM, try_=_MEMORY)
    return Outcome.FAIL, Phase.PLAN if cause.id in REFUSALS else phase, cause


_OOM = "The kernel killed the server because host memory, or the container's limit, was used up."
_MEMORY = "free -g; dmesg -T | grep -i -E 'oom|killed process'; fewer parallel compile jobs (MAX_JOBS=4), more swap"


def _deadline(cell: Cell, observed: Sequence[Observation]) -> Failed:
    late = _last(observed, seen.DeadlinePassed)
    if not late:
        return None
    cause = _diagnosed_cause(observed)
    if cause:
        return Outcome.FAIL, late.phase, cause
    silent = f", silent for the last {late.silent_s:.0f} s" if late.silent_s is not None else ""
    text = f"No result in phase {late.phase} after {late.after_s:.0f} s{silent}. Last line: {late.last_line or 'none'}"
    more = "read the end of the server's log; if it was at work, give it longer: policy.deadlines in the matrix"
    return (
        Outcome.FAIL,
        late.phase,
        Cause(id=f"{late.phase}-timeout", means=text, line=late.last_line or None, try_=more),
    )


def _request(cell: Cell, observed: Sequence[Observation]) -> Failed:
    failed = _last(observed, seen.RequestFailed)
    if not failed:
        return None
    cause = _diagnosed_cause(observed) or Cause(
        id="request-failed",
        means=failed.problem,
        try_="read the end of the server's log; by hand: sweeper show TRIAL --command, then sweeper bench URL",
    )
    return Outcome.FAIL, failed.phase, cause


def _sanity(cell: Cell, observed: Sequence[Observation]) -> Failed:
    problem, sample = summarise([item for item in observed if isinstance(item, seen.OutputSample)])
    if problem is None or sample is None:
        return None
    shown = " ".join(sample.text.split())[:100]
    means = f"The answer to {sample.prompt[:60]!r} is {problem}: {shown!r}."
    return Outcome.FAIL, Phase.SANITY, Cause(id="garbage-output", means=means, try_="sweeper show TRIAL --samples")


def _acceptance(cell: Cell, observed: Sequence[Observation]) -> Failed:
    if cell.speculative is None:
        return None
    for item in observed:
        accepted = item.point.acceptance if isinstance(item, seen.PointMeasured) else None
        if accepted is None or accepted.rate is None or (accepted.draft_tokens or 0) < MIN_DRAFT_TOKENS:
            continue
        if accepted.rate < MIN_ACCEPTANCE:
            share = f"{accepted.accepted} of {accepted.draft_tokens} drafted tokens accepted"
            means = f"{share}: the draft is broken, not slow."
            return Outcome.FAIL, Phase.MEASURE, Cause(id="spec-low-acceptance", means=means)
    return None


def _unproven(observed: Sequence[Observation]) -> tuple[Outcome, Phase, Cause] | None:
    """INCONCLUSIVE where a check that PASS needs did not run or did not hold."""
    fault = _last(observed, seen.HarnessFault)
    if fault:
        return Outcome.INCONCLUSIVE, _reached(observed), Cause(id="harness", means=fault.problem, try_=fault.hint)
    points = [item.point for item in observed if isinstance(item, seen.PointMeasured)]
    if not _last(observed, seen.ReadySeen):
        return (
            Outcome.INCONCLUSIVE,
            Phase.READY,
            Cause(id="not-ready", means="Nothing shows that the server became ready."),
        )
    if not any(_looked_at(item) for item in observed):
        return Outcome.INCONCLUSIVE, Phase.SANITY, Cause(id="text-unchecked", means="No answer was looked at.")
    diagnosis = _last(observed, seen.Diagnosed)
    if diagnosis is not None and not diagnosis.complete:
        return Outcome.INCONCLUSIVE, Phase.STOP, Cause(id="log-incomplete", means="The log was not read to its end.")
    if not points:
        return Outcome.INCONCLUSIVE, Phase.MEASURE, Cause(id="not-measured", means="No window was measured.")
    if any(point.against is None for point in points):
        return None
    return Outcome.INCONCLUSIVE, Phase.MEASURE, point_cause(points[0])


def point_cause(point: DecodePoint) -> Cause:
    """Why a point that does not hold has no place. One such point takes no place from the launch's other points."""
    means = f"Concurrency {point.concurrency}: {point.against}."
    if not point.sent:
        return Cause(id="point-not-sent", means=means)
    again = "measure it again: sweeper run MATRIX --resume RUN"
    return Cause(id="window-invalid" if point.invalid else "tokens-uncounted", means=means, try_=again)


def _looked_at(item: Observation) -> bool:
    """An answer of the model itself: what the small checkpoint said before the launch is none."""
    if isinstance(item, seen.CanaryChecked):
        return item.where != "preflight" and item.verdict != "unchecked"
    return isinstance(item, seen.OutputSample)


def _findings(observed: Sequence[Observation]) -> tuple[Finding, ...]:
    found = [
        Finding(id="gpu-held", text="GPU memory still held after the stop by " + ", ".join(item.holders))
        for item in observed
        if isinstance(item, seen.GpuHeld)
    ]
    diagnosis = _last(observed, seen.Diagnosed)
    if diagnosis and diagnosis.verdict == "degraded" and diagnosis.cause:
        found.append(Finding(id=diagnosis.cause.id, text=diagnosis.cause.means))
    for item in observed:
        if isinstance(item, seen.PointMeasured) and item.point.client_bound:
            found.append(
                Finding(
                    id="client-bound",
                    text=f"Concurrency {item.point.concurrency}: the client, not the server, set the pace.",
                )
            )
    return tuple(found)


def _diagnosed_cause(observed: Sequence[Observation]) -> Cause | None:
    diagnosis = _last(observed, seen.Diagnosed)
    if diagnosis is None or diagnosis.verdict not in ("fatal", "unknown-exit"):
        return None
    return diagnosis.cause


def _effective(observed: Sequence[Observation]) -> EffectiveConfig | None:
    item = _last(observed, seen.EffectiveSeen)
    return item.effective if item else None


def _reached(observed: Sequence[Observation]) -> Phase:
    phase = Phase.LAUNCH
    for item in observed:
        if isinstance(item, seen.ReadySeen):
            phase = Phase.SANITY
        elif isinstance(item, seen.PointMeasured):
            phase = Phase.MEASURE
    return phase


def _last(observed: Sequence[Observation], kind: type[T]) -> T | None:
    for item in reversed(observed):
        if isinstance(item, kind):
            return item
    return None


def with_findings(verdict: Verdict, *more: Finding) -> Verdict:
    """The verdict with further findings, e.g. requested and effective backend differ."""
    return replace(verdict, findings=(*verdict.findings, *more))
