"""A claim against own figures: the verdict and its reason.

In order: comparable figures decide (met, not met, above, below, or mislabelled when a total, a stream count or a chunk
count explains the gap), and a claim they do not meet is implausible when it also beats a limit. A claim that no figure
may be held against is implausible or mislabelled where physics says so, else not comparable, unknown or not measured.
What was measured under other conditions refutes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeper.core.claims import COUNTED, LOWER_IS_BETTER, TIMED, Claim, ClaimResult, ClaimVerdict, Figure, Reading
from sweeper.core.claims_compare import QUESTIONS, Fit, fit, words
from sweeper.core.claims_limits import Limit, as_output
from sweeper.core.stats import NOISE
from sweeper.core.windows import TOTAL_SOURCES
from sweeper.core.windows_point import source_flag

TOLERANCE = 0.05
"""A claim counts as met within 5 % of its figure: drivers, clocks and prompts of two machines differ by that much."""

EXPLAINED = 0.03
"""A wrong label explains a number that it reproduces within 3 %."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A figure and how its conditions relate to the claim's."""

    figure: Figure
    fit: Fit

    def reading(self, claim: Claim) -> Reading | None:
        return self.figure.readings.get((claim.kind, claim.unit))


def check(claim: Claim, figures: Sequence[Figure], limit: Limit | None = None) -> ClaimResult:
    """The verdict of one claim. `figures`: everything measured; `limit`: from `claims_limits.limit`."""
    held = [_Held(figure, fit(claim, figure.conditions, recorded=figure.failed is None)) for figure in figures]
    open_ones = [one for one in held if one.fit.difference is None]
    # A matrix names its cells after published rows: two images of one backend are two rows.
    open_ones = [one for one in open_ones if claim.row and one.figure.name == claim.row] or open_ones
    guessed = [one for one in open_ones if one.reading(claim) is not None and _guessed(claim, one.figure)]
    measured = [one for one in open_ones if one.reading(claim) is not None and one not in guessed]
    settled = [one for one in measured if not one.fit.unstated and not one.fit.unrecorded]
    if settled:
        result = _numbers(claim, _strongest(claim, settled))
        beaten = limit is not None and limit.broken is not None
        if limit is not None and beaten and result.verdict not in (ClaimVerdict.MET, ClaimVerdict.MISLABELLED):
            doubted = _impossible(claim, limit, held)
            return replace(doubted, why=f"{doubted.why}; measured: {result.why}", figure=result.figure,
                           reading=result.reading, difference=None)  # fmt: skip
        return _with_notes(result, limit)
    if limit is not None and limit.broken is not None:
        return _impossible(claim, limit, held)
    if guessed and not measured:
        return _with_notes(_counted_otherwise(claim, guessed[0]), limit)
    if measured or (open_ones and _questions(open_ones[0].fit)):
        return _with_notes(_unknown(claim, (measured or open_ones)[0]), limit)
    if open_ones:
        return _with_notes(_not_measured(claim, open_ones), limit)
    return _with_notes(_apart(claim, held), limit)


def _guessed(claim: Claim, figure: Figure) -> bool:
    """Counted by nobody who made the tokens: such a rate has no place beside exact ones, published or ours."""
    return claim.kind in COUNTED and source_flag(figure.counted) is not None and figure.counted not in TOTAL_SOURCES


def _counted_otherwise(claim: Claim, held: _Held) -> ClaimResult:
    return ClaimResult(
        claim=claim,
        verdict=ClaimVerdict.NOT_COMPARABLE,
        why=f"tokens: claimed as the engine counts them, measured with {source_flag(held.figure.counted)} "
        f"(closest: {held.figure.label})",
        figure=held.figure,
        difference="tokens",
        caveats=held.fit.caveats,
    )


def _spread_out(claim: Claim, figure: Figure) -> str | None:
    """What a verdict rests on where the server told how many tokens there were and not when they came."""
    return source_flag(figure.counted) if claim.kind in TIMED else None


def _strongest(claim: Claim, held: Sequence[_Held]) -> _Held:
    """The best figure: a claim that leaves something open is refuted only when no cell reaches it."""
    sign = -1 if claim.kind in LOWER_IS_BETTER else 1
    return max(held, key=lambda one: sign * _value(one.reading(claim)))


def _value(reading: Reading | None) -> float:
    return reading.value if reading else 0.0


def _band(claim: Claim) -> tuple[float, float]:
    """The claim with its tolerance: 5 %, or two standard deviations where the source gives a larger spread."""
    spread = 2 * (claim.spread or 0.0)
    slack = [max(TOLERANCE * abs(end), spread) for end in (claim.low, claim.high)]
    return claim.low - slack[0], claim.high + slack[1]


def _numbers(claim: Claim, held: _Held) -> ClaimResult:
    reading = held.reading(claim)
    assert reading is not None
    low, high = _band(claim)
    ours_low, ours_high = (
        (reading.interval.low, reading.interval.high)
        if reading.interval
        else (reading.value * (1 - NOISE), reading.value * (1 + NOISE))
    )
    if claim.bound == "up-to" and reading.best is not None:
        ours_high = max(ours_high, reading.best)
    side = "above" if ours_low > high else "below" if ours_high < low else "inside"
    verdict = _verdict(claim, side)
    why = _sentence(claim, held.figure, reading, verdict)
    explained = _mislabelled(claim, held.figure) if verdict is not ClaimVerdict.MET else None
    if explained:
        verdict, why = ClaimVerdict.MISLABELLED, f"{explained}; {why}"
    caveats = held.fit.caveats
    if flag := _spread_out(claim, held.figure):
        why, caveats = f"{why}; {flag}", (*caveats, flag)
    return ClaimResult(claim=claim, verdict=verdict, why=why, figure=held.figure, reading=reading, caveats=caveats)


def _verdict(claim: Claim, side: str) -> ClaimVerdict:
    if side == "inside":
        return ClaimVerdict.MET
    if claim.bound == "ceiling":
        return ClaimVerdict.NOT_MET if side == "above" else ClaimVerdict.MET
    worse = "above" if claim.kind in LOWER_IS_BETTER else "below"
    if claim.promised or claim.bound in ("up-to", "at-least"):
        if side == worse:
            return ClaimVerdict.NOT_MET
        return ClaimVerdict.ABOVE if claim.bound == "exact" and side == "above" else ClaimVerdict.MET
    return ClaimVerdict.ABOVE if side == "above" else ClaimVerdict.BELOW


def _sentence(claim: Claim, figure: Figure, reading: Reading, verdict: ClaimVerdict) -> str:
    end = claim.high if verdict is ClaimVerdict.ABOVE else claim.low
    if claim.bound == "ceiling":
        end = claim.high
    factor = ""
    if verdict is not ClaimVerdict.MET and end and reading.value:
        share = reading.value / end
        factor = f", {share:.0%} of {end:g}" if share < 2 else f", {share:.1f} times {end:g}"
        if share < 0.95:
            factor += f" (the claim is {1 / share:.1f} times as much)"
    spread = (
        f"[{reading.interval.low:.4g}, {reading.interval.high:.4g}]" if reading.interval else "one launch, no spread"
    )
    best = f", best window {reading.best:.4g}" if claim.bound == "up-to" and reading.best is not None else ""
    return f"{figure.label}: {reading.value:.4g} {claim.unit} ({spread}{best}){factor}"


def _mislabelled(claim: Claim, figure: Figure) -> str | None:
    """What else the number would be, from our own figure: a total, one stream of several, chunks instead of tokens."""
    ours = figure.readings.get(("output", "tok/s")) or figure.readings.get(("end-to-end", "tok/s"))
    if claim.kind not in ("output", "end-to-end") or ours is None:
        return None
    c, claimed = figure.conditions, claim.low
    isl, osl, streams = claim.conditions.isl or c.isl, claim.conditions.osl or c.osl, c.concurrency or 1
    if isl and osl and _near(claimed, ours.value * (isl + osl) / osl):
        return f"a total is quoted as output: {as_output(claimed, isl, osl)}"
    length = c.acceptance_length
    if length and length > 1 + 2 * TOLERANCE and _near(claimed, ours.value / length):
        tokens = claimed * length
        return f"chunks were counted as tokens: {claimed:g} chunks/s at {length:.2f} a step is {tokens:.4g} tok/s"
    if streams > 1 and _near(claimed, ours.value / streams):
        return (
            f"one stream is quoted as the sum: {claimed:g} tok/s times {streams} streams is {claimed * streams:g} tok/s"
        )
    if streams > 1 and _near(claimed, ours.value * streams):
        return f"the sum was multiplied by the streams again: {claimed:g} tok/s over {streams} is {claimed / streams:g}"
    return None


def _near(a: float, b: float) -> bool:
    """Closer than the tolerance of a verdict: a coincidence must not pass for an explanation."""
    return abs(a - b) <= EXPLAINED * abs(a)


def _impossible(claim: Claim, limit: Limit, held: Sequence[_Held]) -> ClaimResult:
    closest = max(held, key=lambda one: one.fit.depth, default=None)
    difference = closest.fit.difference if closest else None
    if limit.total is not None:
        verdict, why = (
            ClaimVerdict.MISLABELLED,
            f"a total is quoted as output: {limit.total}; as output, {limit.broken}",
        )
    else:
        verdict, why = ClaimVerdict.IMPLAUSIBLE, str(limit.broken)
    return ClaimResult(
        claim=claim,
        verdict=verdict,
        why=_and_retracted(claim, why),
        figure=closest.figure if closest else None,
        difference=difference[0] if difference else None,
        caveats=limit.notes,
    )


def _unstated(fit: Fit) -> list[str]:
    """What to ask the claim's author."""
    return [QUESTIONS.get(name, f"at which {words(name)}?") for name in fit.unstated]


def _questions(fit: Fit) -> tuple[str, ...]:
    """To the claim's author first, then what our own record lacks."""
    return (*_unstated(fit), *(f"our own record does not say: {words(name)}" for name in fit.unrecorded))


def _lacking(fit: Fit) -> str:
    """As `_questions`, in one line."""
    ask = _unstated(fit)
    ours = ", ".join(words(name) for name in fit.unrecorded)
    parts = (f"ask: {' '.join(ask)}" if ask else "", f"our own record does not say: {ours}" if ours else "")
    return " ".join(filter(None, parts))


def _unknown(claim: Claim, held: _Held) -> ClaimResult:
    reading = held.reading(claim)
    beside = f"; nearest figure {held.figure.label}: {reading.value:.4g} {claim.unit}" if reading else ""
    return ClaimResult(
        claim=claim,
        verdict=ClaimVerdict.UNKNOWN,
        why=f"{_lacking(held.fit)}{beside}",
        figure=held.figure,
        reading=reading,
        ask=_questions(held.fit),
        caveats=held.fit.caveats,
    )


def _not_measured(claim: Claim, held: Sequence[_Held]) -> ClaimResult:
    failed = next((one for one in held if one.figure.failed), None)
    one = failed or held[0]
    if failed:
        why = f"{one.figure.label} ran under these conditions and gave no figure: {one.figure.failed}"
    else:
        why = f"{one.figure.label} ran under these conditions, but {claim.kind} in {claim.unit} was not measured"
    return ClaimResult(
        claim=claim, verdict=ClaimVerdict.NOT_MEASURED, why=why, figure=one.figure, caveats=one.fit.caveats
    )


def _apart(claim: Claim, held: Sequence[_Held]) -> ClaimResult:
    closest = max(held, key=lambda one: (one.fit.depth, one.reading(claim) is not None), default=None)
    if closest is None or closest.fit.difference is None:
        return ClaimResult(claim=claim, verdict=ClaimVerdict.NOT_MEASURED, why="nothing was measured")
    name, theirs, ours = closest.fit.difference
    return ClaimResult(
        claim=claim,
        verdict=ClaimVerdict.NOT_COMPARABLE,
        why=f"{words(name)}: claimed with {theirs}, measured with {ours} (closest: {closest.figure.label})",
        figure=closest.figure,
        difference=name,
        caveats=closest.fit.caveats,
    )


def _with_notes(result: ClaimResult, limit: Limit | None) -> ClaimResult:
    notes = list(limit.notes) if limit else []
    doubted = result.claim.retracted is not None or result.claim.promised
    if limit is not None and limit.broken is not None:
        notes.append(f"check the limit: {limit.broken}")
    c = result.claim.conditions
    why = result.why
    if result.claim.kind == "total" and c.isl and c.osl:
        why = f"{why}; {as_output(result.claim.low, c.isl, c.osl)}"
    if notes and doubted:
        why = f"{why}; {'; '.join(notes)}"
    return ClaimResult(
        claim=result.claim,
        verdict=result.verdict,
        why=_and_retracted(result.claim, why),
        figure=result.figure,
        reading=result.reading,
        difference=result.difference,
        ask=result.ask,
        caveats=(*result.caveats, *notes),
    )


def _and_retracted(claim: Claim, why: str) -> str:
    return f"{why}; retracted: {claim.retracted}" if claim.retracted else why
