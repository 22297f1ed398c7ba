"""The streaming matcher: bytes in, matches out as they happen, one diagnosis at the end.

Used live by the runner (a fatal line ends a launch within a second) and by `sweeper diagnose` on whole files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sweeper.core.verdicts import Phase
from sweeper.diagnosis import engine as engines
from sweeper.diagnosis.result import Diagnosis, Match
from sweeper.diagnosis.rules import Shown, proves
from sweeper.diagnosis.signature import Signature
from sweeper.diagnosis.state import MARKERS, SERVED, LifeReader
from sweeper.diagnosis.stream import LineStream
from sweeper.diagnosis.tracebacks import FRAME, HEAD, TraceReader
from sweeper.diagnosis.verdict import Seen, Story, decide, shown_line
from sweeper.engines.facts import FactReader

_EARLY = (Phase.PLAN, Phase.LAUNCH)
_MATCHES = 300
"""Lines after which one signature is only counted."""
_TRIES = 20_000
"""Lines after which a signature that seldom or never matched is no longer asked."""
_FACTS = 8_000
"""Lines with facts that are read as they come; of the rest only the last ones."""
_ORDINARY = ("DEBUG", "WARNING")


@dataclass(slots=True)
class _Entry:
    """One signature while a log is read."""

    signature: Signature
    lines: int = 0
    tries: int = 0
    first: tuple[int, str] | None = None


@dataclass(slots=True)
class _Pending:
    """A first line of several; what still has to follow, and until where."""

    entry: _Entry
    line: Shown
    evidence: dict[str, str]
    missing: list[str]
    until: int


@dataclass(slots=True)
class _Uses:
    """Who wants a literal."""

    entries: list[_Entry] = field(default_factory=list)
    fact: bool = False
    life: bool = False
    head: bool = False
    frame: bool = False


class LogMatcher:
    """Feed it a log in any pieces. `engine` is the engine when it is known beforehand, else it is read off the log."""

    def __init__(self, signatures: Sequence[Signature], *, engine: str | None = None) -> None:
        self._facts = FactReader()
        self._life = LifeReader()
        self._engine = engines.EngineReader(engine)
        self._traces = TraceReader()
        self._pending: list[_Pending] = []
        self._seen: dict[tuple[str, int, bool | None, bool], Seen] = {}
        self._found: list[Match] = []
        self._phase: Phase | None = None
        self._fact_lines = 0
        uses: dict[str, _Uses] = {HEAD: _Uses(head=True), FRAME: _Uses(frame=True)}
        for signature in signatures:
            entry = _Entry(signature)
            for anchor in signature.anchors:
                uses.setdefault(anchor, _Uses()).entries.append(entry)
        for literal in FactReader.LITERALS:
            uses.setdefault(literal, _Uses()).fact = True
        for literal in MARKERS:
            uses.setdefault(literal, _Uses()).life = True
        self._uses = list(uses.values())
        self._literals = [literal.encode() for literal in uses]
        self._stream = LineStream(self._literals, self._line, self._block)

    @property
    def literals(self) -> tuple[bytes, ...]:
        """Everything the scanner looks for."""
        return tuple(self._literals)

    def feed(self, data: bytes) -> list[Match]:
        """Takes the next bytes of the log; returns what the lines completed by them proved, in order."""
        self._stream.feed(data)
        found, self._found = self._found, []
        return found

    def set_phase(self, phase: Phase) -> None:
        """What the runner is doing now. Without it the phase is read off the log."""
        self._phase = phase

    def finish(self, exited: bool | None = None, exit_code: int | None = None) -> Diagnosis:
        """The answer. `exited` None: not known (a file); False: it still runs. `exit_code` follows the shell."""
        self._stream.close()
        self._traces.finish()
        self._last_facts()
        self._add_counted()
        facts = self._facts.result()
        return decide(
            Story(
                seen=list(self._seen.values()),
                attempts=self._life.attempts,
                traces=self._traces.done,
                effective=facts,
                engine=facts.engine or self._engine.engine,
                engine_version=facts.engine_version or self._engine.version,
                lines=self._stream.lines,
                last=self._stream.last_line(),
                exited=exited,
                exit_code=exit_code,
            )
        )

    # One line ---------------------------------------------------------------------------------------------------

    def _line(self, no: int, raw: bytes, literals: Sequence[int]) -> None:
        if b"\r" in raw:
            self._redrawn(no, raw, literals)
            return
        line = Shown(no, raw.decode("utf-8", "replace"), self._stream.before)
        wanted = dict.fromkeys(literals)
        if any(self._uses[number].life for number in wanted):
            self._live(no, line)
        for number in wanted:
            use = self._uses[number]
            if use.head:
                self._traces.begin(no, line.clean)
            elif use.frame:
                self._traces.frame(no, line.clean)
        if any(self._uses[number].fact for number in wanted):
            self._fact(no, line)
        self._follow(no, line)
        for entry in {id(e): e for number in wanted for e in self._uses[number].entries}.values():
            self._try(entry, line)
        if self._traces.open:
            self._traces.line(no, line.clean, line.raw)
        self._stream.every = self._traces.open or bool(self._pending)
        self._mute(wanted)

    def _redrawn(self, no: int, raw: bytes, literals: Sequence[int]) -> None:
        """A progress bar went back with carriage returns; each piece was a line of its own on the screen."""
        pieces = [piece for piece in raw.split(b"\r") if piece]
        for piece in pieces[-1:] if not literals else pieces:
            self._line(no, piece, [number for number in literals if self._literals[number] in piece])

    def _live(self, no: int, line: Shown) -> None:
        before = len(self._life.attempts)
        self._life.line(no, line.clean.text)
        if len(self._life.attempts) > before:
            self._stream.unmute()
            for use in self._uses:
                for entry in use.entries:
                    entry.lines, entry.tries, entry.first = 0, 0, None

    def _block(self, block: bytes, first: int) -> None:
        """Served requests are too common for a visit each: only the first and the last of a block count."""
        self._engine.block(block)
        now = self._life.now
        if now.served_first is None and (at := _served(block, first=True)) is not None:
            now.served_first = first + block.count(b"\n", 0, at)
        if (at := _served(block, first=False)) is not None:
            now.served = first + block.count(b"\n", 0, at)

    def _last_facts(self) -> None:
        """After the budget for facts was spent, the last block still says how it ended."""
        if self._fact_lines < _FACTS:
            return
        for no, raw, literals in self._stream.last_lines():
            if any(self._uses[number].fact for number in literals):
                self._fact(no, Shown(no, raw.decode("utf-8", "replace"), _nothing_before))

    def _add_counted(self) -> None:
        """Lines that were only counted belong to the event that made their literal too common to read."""
        latest = {seen.signature.id: seen for seen in self._seen.values()}
        extra: dict[str, int] = {}
        for number, use in enumerate(self._uses):
            for entry in use.entries:
                if entry.lines >= _MATCHES:
                    name = entry.signature.id
                    extra[name] = max(extra.get(name, 0), self._stream.counts[number])
        for name, count in extra.items():
            if name in latest:
                latest[name].count += count

    def _fact(self, no: int, line: Shown) -> None:
        self._fact_lines += 1
        self._facts.line(no, line.clean.text, line.clean.stamp_s)

    def _mute(self, literals: Iterable[int]) -> None:
        for number in literals:
            use = self._uses[number]
            busy = use.life or use.head or (use.fact and self._fact_lines < _FACTS)
            if not busy and all(entry.lines >= _MATCHES or entry.tries >= _TRIES for entry in use.entries):
                self._stream.mute(number)

    # Signatures -------------------------------------------------------------------------------------------------

    def _try(self, entry: _Entry, line: Shown) -> None:
        signature = entry.signature
        # What is only noted, or makes a server slow, is not worth as much reading as what kills it.
        entry.tries += 1 if signature.severity == "fatal" else 10
        if not self._in_phase(signature, line.no):
            return
        evidence = proves(signature, line)
        if evidence is None:
            return
        if signature.multiline is None:
            self._proved(entry, line, evidence)
            return
        missing = list(signature.multiline.next_contains)
        self._pending.append(_Pending(entry, line, evidence, missing, line.no + signature.multiline.within))

    def _follow(self, no: int, line: Shown) -> None:
        if not self._pending:
            return
        left = []
        for pending in self._pending[-50:]:
            pending.missing = [literal for literal in pending.missing if literal not in line.raw]
            if not pending.missing:
                self._proved(pending.entry, pending.line, pending.evidence)
            elif no < pending.until:
                left.append(pending)
        self._pending = left

    def _in_phase(self, signature: Signature, no: int) -> bool:
        after = self._after_ready(no)
        return not signature.phases or any((phase not in _EARLY) is bool(after) for phase in signature.phases)

    def _after_ready(self, no: int) -> bool | None:
        if self._phase in (Phase.CANARY, Phase.SANITY, Phase.MEASURE):
            return True
        known = self._life.now.after_ready(no)
        return known if known is not None or self._phase is None else False

    def _proved(self, entry: _Entry, line: Shown, evidence: dict[str, str]) -> None:
        signature = entry.signature
        entry.lines += 1
        entry.first = entry.first or (line.no, line.raw)
        if entry.lines < signature.min_count:
            return
        no, raw = entry.first if entry.lines == signature.min_count else (line.no, line.raw)
        stopping = self._life.now.stopping is not None
        after = self._after_ready(no)
        key = (signature.id, len(self._life.attempts) - 1, after, stopping)
        seen = self._seen.get(key)
        clean = line.clean
        if seen is None:
            seen = Seen(
                signature=signature,
                attempt=key[1],
                after_ready=after,
                stopping=stopping,
                first_no=no,
                line=raw,
                process=clean.process,
                level=clean.level,
                count=max(1, signature.min_count),
                evidence=evidence,
            )
            self._seen[key] = seen
        elif line.no != seen.last_no:
            seen.count += 1
        seen.last_no = line.no
        if clean.rank is not None:
            seen.ranks.add(clean.rank)
        if entry.lines <= _MATCHES:
            self._found.append(self._match(signature, line, after, stopping))

    def _match(self, signature: Signature, line: Shown, after: bool | None, stopping: bool) -> Match:
        now = (
            signature.severity == "fatal"
            and signature.rank == "root"
            and not stopping
            and (not after or signature.fatal_after_ready)
            and line.clean.level not in _ORDINARY
            and engines.fits(signature, self._engine.engine, self._engine.version)
        )
        return Match(
            id=signature.id,
            severity=signature.severity,
            line_no=line.no,
            line=shown_line(line.raw),
            phase=self._phase or (Phase.MEASURE if after else Phase.LAUNCH),
            fatal_now=now,
        )


def _nothing_before(count: int) -> Iterator[bytes]:
    return iter(())


def _served(block: bytes, *, first: bool) -> int | None:
    """Offset of the first or last answered generation request in a block."""
    at = len(block)
    position = 0
    for _ in range(200):
        at = block.find(SERVED, position) if first else block.rfind(SERVED, 0, at)
        if at < 0:
            return None
        if block.find(b'"POST ', block.rfind(b"\n", 0, at) + 1, at) >= 0:
            return at
        position = at + 1
    return None
