"""One log line without what wrappers put in front of it: colours, stamps, container and process names, log levels.

Prefixes stack in any order (`vllm-1  | (Worker_TP1 pid=8) ERROR 11-21 02:28:15 [core.py:12] text`), so they are taken
off one by one until none is left. What they said is kept beside the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanLine:
    """`text` has no prefix and no control character; leading spaces of the message itself are kept."""

    text: str
    process: str | None = None
    """As written: `Worker_TP1_EP1`, `EngineCore_DP0`, `APIServer`; SGLang's `DP1 TP0`."""
    rank: int | None = None
    """Tensor-parallel rank where the prefix names one, else the rank of `[rankN]`."""
    level: str | None = None
    """DEBUG, INFO, WARNING, ERROR, CRITICAL."""
    stamp_s: float | None = None
    """Seconds of the day of the innermost time stamp: for durations within one log, not for dates."""
    source: str | None = None
    """`core.py:1510`"""


_CSI = r"(?:\x1b\[|\x9b|\^\[\[|␛\[|\\x1b\[|\\033\[|\\u001b\[)[0-9;?]*[ -/]*[@-~]"
_OSC = r"\x1b\][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\)?"
_ORPHAN = r"[ \ufffd]?\[(?:0|1|2|3|4|7|22|39|49|3[0-7]|9[0-7]|[01];(?:[01]|3[0-7]|9[0-7])|3[0-7];[01]|38;5;\d{1,3})m"
"""A colour whose ESC was lost, or turned into a blank."""
ANSI = re.compile(f"{_CSI}|{_OSC}|\x1b[()][A-Z0-9]|\x1b[ -~]|{_ORPHAN}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

LEVELS = {
    "TRACE": "DEBUG", "DEBUG": "DEBUG", "INFO": "INFO", "NOTICE": "INFO", "WARN": "WARNING", "WARNING": "WARNING",
    "ERROR": "ERROR", "ERR": "ERROR", "CRITICAL": "CRITICAL", "FATAL": "CRITICAL",
    "D": "DEBUG", "I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL", "V": "DEBUG",
}  # fmt: skip
_LEVEL = "TRACE|DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL"
_CLOCK = r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d(?:[.,]\d{1,9})?)"
_DATE = r"(?:\d{4}[-/]\d\d[-/]\d\d|\d\d[-/]\d\d[-/]\d{4})"
_FILE = r"[\w./\\-]+\.(?:py|cpp|cc|cu|cuh|h|hpp|rs|go|c|inl)"

_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        # (Worker_TP1 pid=8), (RayWorkerWrapper pid=8, ip=192.0.2.1), [repeated 3x across cluster]
        r"\((?P<process>[A-Za-z][\w.:-]*(?: [\w-]+)?)?(?: rank=(?P<rank>\d+))?,? ?pid=\d+(?:, ip=[\w.:]+)?\)"
        r"(?: \[repeated \d+x[^\]]*\])? ?",
        r"\((?:raylet|autoscaler|gcs_server)(?:, ip=[\w.:]+)?\) ?",
        # vLLM: INFO 11-21 02:50:47 [core.py:114]; older: INFO 06-04 12:00:00 core.py:114]
        rf"(?P<level>{_LEVEL})\s+(?:\d{{4}}-)?\d\d-\d\d {_CLOCK} "
        rf"(?:\[(?P<source>[\w./-]+:\d+)\]|(?P<source2>{_FILE}:\d+)\])? ?",
        rf"\[(?P<source>{_FILE}:\d+)\] ?",
        # SGLang: [2026-10-02 11:52:18 DP1 TP0 EP0]
        rf"\[{_DATE}[ T]{_CLOCK}(?P<process>(?: ?(?:DP|TP|PP|EP|ATTN_TP|MOE_EP|CP)\d+)+)?\] ?",
        # logging and loguru: 2026-11-21 02:52:02,740 - INFO - autotuner.py:622 - flashinfer.jit:
        rf"{_DATE}[ T]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)? ?(?:[-|] ?)?(?P<level>{_LEVEL})\s*[-|:]\s*"
        rf"(?:(?P<source>{_FILE}:\d+) - )?(?:[\w.]+: )?",
        rf"{_DATE}[ T]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?(?: std(?:out|err) [FP])?(?: - |: | \| |, |\s|$)",
        # TensorRT-LLM: [11/21/2025-02:52:02] [TRT-LLM] [RANK 1] [E]
        rf"\[{_DATE}-{_CLOCK}\] ?",
        r"\[(?:TRT-LLM|TensorRT-LLM)\] ?(?:\[(?:RANK |rank )?(?P<rank>\d+)\] ?)?(?:\[(?P<level>[DIWEFV]|"
        + _LEVEL
        + r")\] ?)?",
        # torch: [rank0]:[W1121 02:02:46.023118553 ProcessGroupNCCL.cpp:1575]
        r"\[(?:default|rank)(?P<rank>\d+)\]:? ?",
        rf"\[?(?P<level>[DIWEF])\d{{4}} {_CLOCK}(?:\s+\d+)? (?P<source>{_FILE}:\d+)\] ?",
        # docker compose, kubectl --prefix, srun, mpirun
        r"(?:[a-z0-9][\w.-]{0,60}|\x7f)\s{1,30}\| ?",
        r"\[pod/[\w./-]+\] ?",
        r"\[\d+,\d+\]<std(?:out|err)>: ?",
        r"(?P<rank>\d{1,4}): (?=\S)",
        # syslog and journald
        r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)? ?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\s+\d{1,2} "
        rf"{_CLOCK} (?:[\w.-]+ )?(?:[\w./@-]+(?:\[\d+\])?: )?",
        r"\[\s*\d{1,8}\.\d{3,6}\](?:\[\s*[TC]\d+\])? ?",
        # bare levels: uvicorn's `INFO:     `, `ERROR - `, `[ERROR] `
        rf"(?P<level>{_LEVEL})(?::\s|\s+[-|]\s)\s*",
        rf"\[(?P<level>{_LEVEL}|{_LEVEL.lower()})\]:? ?",
        # quotes in issues and mails
        r"(?:> ?)+",
        r"\x00+",
    )
)
_TP = re.compile(r"TP(\d+)")
_RANKED = re.compile(r"(?:Worker|Rank|rank|worker)[-_ ]?(\d+)$")
_SKIP = re.compile(r"[ \t]+(?=\()")


def strip_ansi(text: str) -> str:
    """Without colour and cursor codes, whole or broken (`^[[31m`, `[1;36m`)."""
    return ANSI.sub("", text)


def printable(text: str) -> str:
    """Safe for a terminal: no escape, control or direction-changing character; tabs become blanks."""
    return _plain(strip_ansi(text))


def _plain(text: str) -> str:
    return text if text.isprintable() else _CONTROL.sub("", text.replace("\t", "    "))


def last_segment(text: str) -> str:
    """What a terminal would show of a line in which a progress bar went back with carriage returns."""
    parts = [part for part in text.rstrip("\r").split("\r") if part]
    return parts[-1] if parts else ""


def clean(text: str, *, stripped: bool = False) -> CleanLine:
    """Takes every known prefix off one line (without its newline). Never raises. `stripped`: it has no colour codes."""
    text = _plain(text) if stripped else printable(text)
    process = level = source = None
    rank: int | None = None
    stamp: float | None = None
    for _ in range(12):
        start = _SKIP.match(text)
        match = _next_prefix(text[start.end() :] if start and process is None else text)
        if match is None or not match.end():
            break
        found = match.groupdict()
        if start and process is None:
            text = text[start.end() :]
        text = text[match.end() :]
        name = (found.get("process") or "").strip()
        if name:
            process = name
            rank = _rank_of(name, rank)
        if found.get("rank"):
            rank = int(found["rank"])
        if found.get("level"):
            level = LEVELS.get(found["level"].upper(), level)
        source = found.get("source") or found.get("source2") or source
        if found.get("h"):
            stamp = int(found["h"]) * 3600 + int(found["m"]) * 60 + float(found["s"].replace(",", "."))
    return CleanLine(text=text, process=process, rank=rank, level=level, stamp_s=stamp, source=source)


def depth_of(process: str | None) -> int:
    """How far inside the engine a process is: 3 worker or scheduler rank, 2 engine core, 1 front end, 0 unknown."""
    if not process:
        return 0
    low = process.lower()
    if "worker" in low or "rank" in low or "tp" in low or "runner" in low or "scheduler" in low:
        return 3
    return 2 if "core" in low or "dp" in low else 1


def _next_prefix(text: str) -> re.Match[str] | None:
    if not text or text[0] == " ":
        return None
    for pattern in _PREFIXES:
        match = pattern.match(text)
        if match is not None:
            return match
    return None


def _rank_of(name: str, before: int | None) -> int | None:
    found = _TP.search(name) or _RANKED.search(name)
    return int(found[1]) if found else before
