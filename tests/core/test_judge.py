"""Verdicts from observations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.core import observations as seen
from sweeper.core.effective import EffectiveConfig
from sweeper.core.judge import judge
from sweeper.core.observations import Observation
from sweeper.core.points import Acceptance, DecodePoint, Quantiles
from sweeper.core.values import Cell, Speculative
from sweeper.core.verdicts import Cause, Outcome, Phase

CELL = Cell(engine="vllm", model="m")
NO_MS = Quantiles(mean=None, p50=None, p99=None)
POINT = DecodePoint(
    preset="sustained-decode", concurrency=1, isl=16, osl=64, decode_tok_s=50.5, decode_tok_s_per_stream=50.5,
    serving_tok_s=48.0, prefill_tok_s=None, ttft_ms=NO_MS, itl_ms=NO_MS, chunk_gap_ms=NO_MS, tokens=512,
    tokens_source="usage", window_s=10.0, acceptance=None, server_tok_s=50.4, client_cpu_s=0.1, client_bound=False,
)  # fmt: skip
READY = seen.ReadySeen(after_s=30.0, answers=2)
STOPPED = seen.ServerExited(phase=Phase.STOP, code=0, oom_killed=False, by_us=True, how="SIGTERM")
DIED = seen.ServerExited(phase=Phase.READY, code=1, oom_killed=False, by_us=False, how="exited by itself")
CLEAN = seen.Diagnosed(verdict="benign", cause=None, lines=100)
CAUSE = Cause(id="moe-backend-rejected", means="The engine refuses the backend.", line_no=7, line="ValueError: ...")


def sample(text: str = "Paris, of course.", problem: str | None = None, right: bool | None = True) -> seen.OutputSample:
    return seen.OutputSample(prompt="p", text=text, tokens=4, finish_reason="length", problem=problem, right=right)


def measured(**changes: object) -> seen.PointMeasured:
    return seen.PointMeasured(workload="decode", point=replace(POINT, **changes))  # type: ignore[arg-type]


HEALTHY: list[Observation] = [READY, sample(), sample(), sample(), measured(), STOPPED, CLEAN]


def outcome(observed: list[Observation], cell: Cell = CELL) -> tuple[Outcome, Phase, str | None]:
    verdict = judge(cell, "c", "c-1", observed)
    return verdict.outcome, verdict.phase, verdict.cause.id if verdict.cause else None


def test_everything_checked_and_fine_is_a_pass() -> None:
    assert outcome(HEALTHY) == (Outcome.PASS, Phase.MEASURE, None)


@pytest.mark.parametrize(
    ("moe", "linear", "ran", "where", "expected"),
    [
        ("marlin", "marlin", None, "golden", Outcome.FAIL),
        ("marlin", "marlin", None, "preflight", Outcome.PASS),
        ("marlin", "flashinfer_cutlass", None, "golden", Outcome.PASS),
        ("flashinfer_cutlass", "marlin", None, "golden", Outcome.PASS),
        ("marlin", None, None, "golden", Outcome.PASS),
        ("marlin", "marlin", False, "golden", Outcome.PASS),
    ],
)
def test_only_a_log_that_names_weight_only_kernels_takes_the_excuse_of_4_bit_activations_away(
    moe: str, linear: str | None, ran: bool | None, where: str, expected: Outcome
) -> None:
    effective = EffectiveConfig(moe_backend=moe, linear_backend=linear, moe_backend_ran=ran)
    figures = {"weight_only": {"verdict": "degraded", "reasons": ["prefill batch 1: KL 8e-05"]}}
    checked = seen.CanaryChecked(verdict="right", figures=figures, where=where)
    verdict = judge(CELL, "c", "c-1", [*HEALTHY, checked, seen.EffectiveSeen(effective=effective)])
    assert verdict.outcome is expected
    if expected is Outcome.FAIL:
        assert verdict.phase is Phase.SANITY
        assert verdict.cause is not None
        assert "KL 8e-05" in verdict.cause.means


def test_a_death_with_a_named_cause_fails_in_the_phase_of_the_death() -> None:
    fatal = seen.Diagnosed(verdict="fatal", cause=replace(CAUSE, id="cuda-oom-weights"), lines=9)
    assert outcome([DIED, fatal]) == (Outcome.FAIL, Phase.READY, "cuda-oom-weights")


def test_an_engine_that_refuses_a_backend_fails_in_phase_plan_because_nothing_crashed() -> None:
    fatal = seen.Diagnosed(verdict="fatal", cause=CAUSE, lines=9)
    assert outcome([DIED, fatal]) == (Outcome.FAIL, Phase.PLAN, "moe-backend-rejected")


def test_a_death_nobody_can_explain_abstains() -> None:
    assert outcome([DIED, seen.Diagnosed(verdict="benign", cause=None)]) == (Outcome.FAIL, Phase.READY, "unknown-exit")


def test_a_container_killed_for_memory_is_named_without_any_log_line() -> None:
    killed = replace(DIED, oom_killed=True, code=137)
    assert outcome([killed])[2] == "host-oom-kill"
    unnamed = seen.Diagnosed(verdict="unknown-exit", cause=replace(CAUSE, id="unknown-exit", line="shard 3"), lines=9)
    assert outcome([killed, unnamed])[2] == "host-oom-kill", "the log of a killed process cannot say so"
    assert (
        outcome([killed, replace(unnamed, cause=replace(CAUSE, id="port-in-use"), verdict="fatal")])[2] == "port-in-use"
    )
    assert outcome([DIED, unnamed])[2] == "unknown-exit"


def test_a_fatal_line_ends_the_launch_although_we_stopped_the_process() -> None:
    line = seen.FatalLine(id="cutlass-tma-ws-grouped-gemm-init", phase=Phase.READY, line_no=3, line="x", after_s=3.2)
    assert outcome([line, STOPPED]) == (Outcome.FAIL, Phase.READY, "cutlass-tma-ws-grouped-gemm-init")


def test_garbage_is_never_ranked_however_fast() -> None:
    observed = [READY, sample("!!!!" * 20, "looping", False), sample("!!!!" * 20, "looping", False), measured(), CLEAN]
    assert outcome(observed) == (Outcome.FAIL, Phase.SANITY, "garbage-output")


def test_fluent_nonsense_fails_by_its_known_answers() -> None:
    observed = [READY, sample(right=False), sample(right=False), sample(right=True), measured(), CLEAN]
    assert outcome(observed)[2] == "garbage-output"


@pytest.mark.parametrize(
    ("observed", "cause"),
    [
        ([READY, sample(), measured(), STOPPED, replace(CLEAN, complete=False)], "log-incomplete"),
        ([READY, measured(), STOPPED, CLEAN], "text-unchecked"),
        ([seen.CanaryChecked(verdict="right"), READY, measured(), STOPPED, CLEAN], "text-unchecked"),
        ([READY, seen.CanaryChecked(verdict="unchecked", where="golden"), measured(), CLEAN], "text-unchecked"),
        ([READY, sample(), STOPPED, CLEAN], "not-measured"),
        ([READY, sample(), measured(invalid=("counter differs by 7 %",)), CLEAN], "window-invalid"),
        ([READY, sample(), measured(decode_tok_s=None, serving_tok_s=None), CLEAN], "tokens-uncounted"),
        ([sample(), measured(), CLEAN], "not-ready"),
    ],
)
def test_a_check_that_could_not_run_is_inconclusive(observed: list[Observation], cause: str) -> None:
    assert outcome(observed)[0] is Outcome.INCONCLUSIVE
    assert outcome(observed)[2] == cause


def test_a_point_that_does_not_hold_costs_the_others_nothing() -> None:
    spoiled = measured(concurrency=64, invalid=("counter differs by 7 %",))
    verdict = judge(CELL, "c", "c-1", [READY, sample(), measured(), spoiled, CLEAN])
    assert verdict.outcome is Outcome.PASS
    assert [point.concurrency for point in verdict.sound] == [1]
    assert [point.concurrency for point in verdict.unproven] == [64]


def test_a_rung_that_was_never_sent_is_not_a_window_that_failed() -> None:
    beyond = measured(isl=9000, decode_tok_s=None, tokens=None, requests=0, invalid=("not sent: 9000 exceed 8192",))
    verdict = judge(CELL, "c", "c-1", [READY, sample(), measured(), beyond, CLEAN])
    assert (verdict.outcome, verdict.unproven) == (Outcome.PASS, ())
    alone = judge(CELL, "c", "c-1", [READY, sample(), beyond, CLEAN])
    assert alone.outcome is Outcome.INCONCLUSIVE
    assert alone.cause is not None
    assert alone.cause.id == "point-not-sent"


def test_a_measured_zero_is_a_result_not_an_absence() -> None:
    assert outcome([READY, sample(), measured(decode_tok_s=0.0), CLEAN])[0] is Outcome.PASS


def test_acceptance_near_zero_fails_a_speculative_cell() -> None:
    cell = replace(CELL, speculative=Speculative(method="mtp", tokens=2))
    dead = Acceptance(rate=0.001, length=1.0, drafts=500, draft_tokens=1000, accepted=1)
    assert outcome([READY, sample(), measured(acceptance=dead), CLEAN], cell)[2] == "spec-low-acceptance"


def test_a_handful_of_drafts_proves_nothing_about_acceptance() -> None:
    cell = replace(CELL, speculative=Speculative(method="ngram", tokens=2))
    few = Acceptance(rate=0.0, length=1.0, drafts=5, draft_tokens=10, accepted=0)
    assert outcome([READY, sample(), measured(acceptance=few), CLEAN], cell)[0] is Outcome.PASS


def test_an_interruption_is_not_the_servers_fault() -> None:
    assert outcome([READY, seen.Interrupted(why="stopped by a person"), DIED])[0] is Outcome.ABORTED


def test_a_cell_that_the_engine_cannot_express_is_skipped() -> None:
    assert outcome([seen.NotPlanned(reason="no flag")]) == (Outcome.SKIP, Phase.PLAN, "not-expressible")


def test_a_silent_server_is_reported_with_its_last_line() -> None:
    late = seen.DeadlinePassed(phase=Phase.READY, after_s=900.0, last_line="NCCL INFO ncclCommInitRank", silent_s=880.0)
    verdict = judge(CELL, "c", "c-1", [late, STOPPED, CLEAN])
    assert verdict.cause is not None
    assert verdict.cause.id == "ready-timeout"
    assert "ncclCommInitRank" in verdict.cause.means


def test_a_degraded_log_is_a_finding_of_a_cell_that_passes() -> None:
    degraded = seen.Diagnosed(verdict="degraded", cause=Cause(id="fp4-marlin-fallback", means="Weight-only FP4."))
    verdict = judge(CELL, "c", "c-1", [*HEALTHY[:-1], degraded])
    assert verdict.outcome is Outcome.PASS
    assert [finding.id for finding in verdict.findings] == ["fp4-marlin-fallback"]
