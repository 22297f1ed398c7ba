"""How the matcher reads a log: chunking, numbering, folding, phases, echoes, hostile bytes."""

from __future__ import annotations

import json
import random
import tracemalloc
from importlib import resources
from pathlib import Path

import pytest
import yaml

from sweeper.core.errors import BadFile
from sweeper.core.verdicts import Phase
from sweeper.diagnosis.diagnose import diagnose_bytes
from sweeper.diagnosis.matcher import LogMatcher
from sweeper.diagnosis.scan import make_scanner
from sweeper.diagnosis.signature import load_signatures, parse_signatures

SHIPPED = load_signatures()
LOGS = Path(__file__).parent / "logs"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
MADE_UP = """
- id: tile-too-large
  severity: fatal
  contains: ["tile does not fit"]
  regex: 'needs (?P<wanted>\\d+) bytes'
  means: "a tile needs more memory than there is"
  try: "a smaller tile"
  source: "made up"
  examples: {match: ["RuntimeError: tile does not fit, needs 9 bytes"]}
- id: late-fault
  severity: fatal
  fatal_after_ready: true
  contains: ["late fault in step"]
  means: "a kernel failed while serving"
  try: "another backend"
  source: "made up"
  examples: {match: ["late fault in step"]}
- id: reraise
  severity: fatal
  rank: opaque
  contains: ["something else failed"]
  means: "only says that something failed"
  try: "look earlier"
  source: "made up"
  examples: {match: ["something else failed"]}
- id: slow-path
  severity: degraded
  min_count: 3
  contains: ["taking the slow path"]
  means: "a slow path is taken again and again"
  try: "find out why"
  source: "made up"
  examples: {match: ["taking the slow path"]}
- id: in-two-lines
  severity: fatal
  contains: ["first half of it"]
  multiline: {next_contains: ["second half"], within: 2}
  means: "a message of two lines"
  try: "read both"
  source: "made up"
  examples: {match: ["first half of it\\nsecond half"]}
"""
OWN = tuple(parse_signatures(MADE_UP, "own.yaml"))
FAULT = "RuntimeError: tile does not fit, needs 77 bytes"
BOOT = "INFO 11-02 07:00:09 [core.py:133] Initializing a V1 LLM engine (v0.27.1) with config: model='m'\n"
READY = "INFO:     Application startup complete.\n"


def verdict(text: str, **kw: int) -> tuple[str, str | None]:
    diagnosis = diagnose_bytes(text.encode(), OWN, **kw)
    return diagnosis.verdict, diagnosis.cause.id if diagnosis.cause else None


def test_a_cause_beats_the_reraise_in_front_of_it() -> None:
    assert verdict(f"{BOOT}something else failed\n(Worker_TP0 pid=3) {FAULT}\n") == ("fatal", "tile-too-large")


def test_thousands_of_threads_that_say_the_same_are_one_event_with_their_number() -> None:
    diagnosis = diagnose_bytes((BOOT + f"{FAULT}\n" * 40_000).encode(), OWN)
    assert diagnosis.cause is not None
    assert (diagnosis.cause.line_no, diagnosis.count, diagnosis.also) == (2, 40_000, ())


def test_only_a_reraise_is_named_as_such() -> None:
    assert verdict(f"{BOOT}something else failed\n") == ("fatal", "reraise")


def test_a_reraise_with_an_unexplained_inner_traceback_is_unknown() -> None:
    log = (
        f"{BOOT}(Worker_TP1 pid=3) Traceback (most recent call last):\n"
        '(Worker_TP1 pid=3)   File "/srv/a.py", line 3, in run\n(Worker_TP1 pid=3)     go()\n'
        "(Worker_TP1 pid=3) ValueError: nobody knows this one\n(APIServer pid=1) RuntimeError: something else failed\n"
    )
    diagnosis = diagnose_bytes(log.encode(), OWN)
    assert diagnosis.verdict == "unknown-exit"
    assert diagnosis.cause is not None
    assert diagnosis.cause.line is not None
    assert "nobody knows this one" in diagnosis.cause.line


def test_ranks_fold_into_one_event_with_a_count() -> None:
    log = BOOT + "".join(f"(Worker_TP{rank} pid=3) ERROR 11-02 07:00:09 [a.py:1] {FAULT}\n" for rank in (0, 1, 2, 5))
    diagnosis = diagnose_bytes(log.encode(), OWN)
    assert (diagnosis.count, diagnosis.ranks) == (4, (0, 1, 2, 5))
    assert diagnosis.cause is not None
    assert diagnosis.cause.line_no == 2


@pytest.mark.parametrize(
    "line",
    [
        '    raise RuntimeError("tile does not fit, needs 77 bytes")',
        f"Supported errors: ['{FAULT}']",
        f"(APIServer pid=1) INFO 11-02 07:00:09 [logger.py:40] Received request cmpl-1: prompt: '{FAULT}'",
        f"non-default args: {{'note': '{FAULT}'}}",
        f"Possible solutions:\n1. avoid {FAULT}\n",
    ],
)
def test_an_echo_a_list_a_prompt_a_dump_and_advice_prove_nothing(line: str) -> None:
    assert verdict(f"{BOOT}{line}\n{READY}") == ("benign", None)


def test_a_server_that_came_up_in_spite_of_it_is_degraded() -> None:
    assert verdict(f"{BOOT}{FAULT}\n{READY}") == ("degraded", "tile-too-large")


def test_after_ready_only_what_is_fatal_there_ends_a_launch() -> None:
    matcher = LogMatcher(OWN)
    matcher.set_phase(Phase.READY)
    assert [m.fatal_now for m in matcher.feed(f"{BOOT}{FAULT}\n".encode())] == [True]
    matcher.set_phase(Phase.MEASURE)
    assert [m.fatal_now for m in matcher.feed(f"{READY}{FAULT}\nlate fault in step\n".encode())] == [False, True]


def test_a_stop_by_signal_explains_the_tracebacks_after_it() -> None:
    stop = "[shutdown] trigger received signal=SIGTERM\n"
    log = f"{BOOT}{READY}{stop}Traceback (most recent call last):\n  x\nOSError: gone\n"
    assert verdict(log) == ("benign", None)


def test_a_degradation_that_only_repetition_proves() -> None:
    assert verdict(BOOT + "taking the slow path\n" * 2 + READY) == ("benign", None)
    assert verdict(BOOT + "taking the slow path\n" * 3 + READY) == ("degraded", "slow-path")


def test_a_message_of_two_lines_needs_both() -> None:
    assert verdict(f"{BOOT}first half of it\nx\nsecond half\n") == ("fatal", "in-two-lines")
    assert verdict(f"{BOOT}first half of it\nx\ny\nz\nsecond half\n{READY}") == ("benign", None)


def test_an_exit_code_without_any_trace_is_unknown() -> None:
    assert verdict(BOOT, exit_code=1) == ("unknown-exit", "unknown-exit")


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_death_that_nobody_explains_shows_the_last_line_and_names_the_signal(size: int) -> None:
    text = b"booting\n" * 3000 + b"about to \x1b[31mjump\x1b[0m\n\n  \n"
    matcher = LogMatcher(load_signatures(()))
    for start in range(0, len(text), size):
        matcher.feed(text[start : start + size])
    cause = matcher.finish(exited=True, exit_code=139).cause
    assert cause is not None
    assert (cause.id, cause.line_no, cause.line) == ("unknown-exit", 3001, "about to jump")
    assert "ended with code 139 (SIGSEGV)" in cause.means
    silent = LogMatcher(load_signatures(())).finish(exited=True, exit_code=0).cause
    assert silent is not None
    assert (silent.line_no, silent.line) == (None, None)
    assert "ended with code 0;" in silent.means


def test_the_last_start_counts_in_a_log_of_several() -> None:
    assert verdict(f"{BOOT}{FAULT}\nsomething else failed\nEngineCore failed to start.\n{BOOT}{READY}") == (
        "benign",
        None,
    )


def test_any_chunking_gives_the_same_answer() -> None:
    log = (LOGS / "healthy-vllm.log").read_bytes()[
        :2500
    ] + f"\n(Worker_TP1 pid=3) {FAULT}\nsomething else failed\n".encode()
    whole = LogMatcher(OWN)
    whole.feed(log)
    expected = whole.finish().to_json()
    draw = random.Random(3)
    for _ in range(5):
        matcher, position = LogMatcher(OWN), 0
        while position < len(log):
            step = draw.randrange(1, 90)
            matcher.feed(log[position : position + step])
            position += step
        assert matcher.finish().to_json() == expected


def test_the_scanner_of_the_standard_library_says_the_same() -> None:
    literals = {3: b"does not fit", 5: b"tile does", 9: b"nowhere"}
    block = b"a tile does not fit\nnothing\n\x1b[31mtile does\n"
    fast, plain = make_scanner(literals).scan(block), make_scanner(literals, portable=True).scan(block)
    assert sorted(fast[0]) == sorted(plain[0])
    assert fast[1] is plain[1] is True


def test_a_broken_signature_names_file_line_and_key() -> None:
    with pytest.raises(BadFile, match=r"f.yaml:3: \[0\].severity"):
        parse_signatures("- id: x\n  contains: [abcdefgh]\n  severity: deadly\n", "f.yaml")
    with pytest.raises(BadFile, match="no such key"):
        parse_signatures(MADE_UP + "  colour: red\n", "f.yaml")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 5000, bytes(range(256)) * 300, b"\xff\xfe\xfa tile \xc3\x28", b"\r\r\r\n\r", b"no newline at all"],
)
def test_hostile_bytes_get_a_clear_answer(data: bytes) -> None:
    assert diagnose_bytes(data, SHIPPED).verdict == "benign"


def test_a_line_of_100_mb_stays_within_memory_and_is_still_read() -> None:
    matcher = LogMatcher(OWN)
    piece = b"x" * (1 << 20)
    tracemalloc.start()
    for index in range(100):
        matcher.feed(piece)
        if index == 60:
            matcher.feed(f" {FAULT} ".encode())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    diagnosis = matcher.finish()
    assert peak < 20e6
    assert diagnosis.lines == 1
    assert diagnosis.cause is not None
    assert diagnosis.cause.id == "tile-too-large"


def test_numbers_are_those_of_grep() -> None:
    log = b"a\r\n\n\x1b[31mred\x1b[0m\n" + FAULT.encode() + b"\r\nrest"
    diagnosis = diagnose_bytes(log, OWN)
    assert diagnosis.cause is not None
    assert (diagnosis.cause.line_no, diagnosis.lines) == (4, 5)


@pytest.mark.parametrize("path", sorted(LOGS.glob("healthy-*.log")), ids=lambda path: path.name)
def test_own_healthy_logs_raise_no_alarm(path: Path) -> None:
    assert diagnose_bytes(path.read_bytes(), SHIPPED).verdict == "benign"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="recorded logs lie beside the checkout only where they are shared")
def test_recorded_logs_are_named_as_labelled() -> None:
    wrong = []
    for name, label in json.loads((CORPUS / "labels.json").read_text()).items():
        diagnosis = diagnose_bytes((CORPUS / name).read_bytes(), SHIPPED)
        named = diagnosis.cause.id if diagnosis.cause else "healthy"
        if (diagnosis.verdict, named) != (label["verdict"], label["label"]):
            wrong.append((name, diagnosis.verdict, named))
    assert wrong == []


def test_every_cause_of_the_taxonomy_has_a_signature() -> None:
    text = resources.files("sweeper.diagnosis").joinpath("taxonomy.yaml").read_text(encoding="utf-8")
    causes = set(yaml.safe_load(text)["causes"])
    assert causes - {entry.id for entry in SHIPPED} == set()
    assert {entry.id for entry in SHIPPED} - causes == set()
