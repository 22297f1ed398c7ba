"""Does one line prove one signature? The rules against false proofs live here.

A line proves nothing when it is source code shown by a traceback, a list of accepted values, a dump of arguments, a
user's prompt, an access log entry, or advice that follows every crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sweeper.diagnosis.signature import Before, Signature
from sweeper.engines.lines import CleanLine, clean

_LIST = re.compile(
    r"(?i)(?:(\b(?:one of|choices|supported(?: \w+){0,3}|available(?: \w+){0,2}|potential(?: \w+){0,2}"
    r"|valid(?: \w+){0,2}|accepted(?: \w+){0,2}|options|registered(?: \w+){0,2}|candidates)\b(?: are| is)?:? ?)"
    r"(?:\[[^\]\n]*\]?|\{[^}\n]*\}?|dict_keys\([^)]*\)*|(?<=one of )\([^)\n]*\)?|(?<=one of: )[^.\n]*)"
    r"|(\bchoose from )[^)\n]*)"
)
"""A list of accepted values, which names many things that did not happen."""
_DUMP = re.compile(
    r"non-default args:|LLM engine \(v[^)]*\) with config:|server_args=ServerArgs\(|Namespace\(|EngineArgs\("
    r"|ServerArgs\(model_path|Dumping input data|Dumping scheduler|Received request|^\s*usage: "
    r"|\"(?:GET|POST|HEAD|OPTIONS) /\S* HTTP/\d"
    r"|Launch command|launch command|Executing command|^\+ \S*python|Route: /"
)
_PROMPT = re.compile(
    r"(?i)((?:^|[\s,{(\"'])(?:prompt|generated_text|output_text|\"content\"|'content'|\"text\"|'text')['\"]?\s*[:=]\s*)"
    r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?)"
)
_LIST_WORDS = (
    "one of", "choices", "choose from", "supported", "available", "potential", "valid", "accepted", "options",
    "registered", "candidates",
)  # fmt: skip
_PROMPT_WORDS = ("prompt", "text", "content")
_FRAME = re.compile(r'^\s*File "[^"]+", line \d+(?:, in .+)?\s*$')
_SOURCE = re.compile(
    r"^\s*(?:[│|❱>]\s*)*(?:\d+\s+[│|]?\s*)?(?:raise |raise$|assert\b|return |if .*:\s*$|elif .*:\s*$|with .*:\s*$"
    r"|except\b.*:\s*$|def |class \w+|from \S+ import|import \w+$|logger\.\w+\(|warnings\.warn\(|print\(|self\.\w+"
    r"|throw |TORCH_CHECK|TLLM_CHECK|TLLM_THROW|NV_CHECK|CHECK_\w+\(|FLASHINFER_CHECK|GGML_ABORT\(|[frb]{0,2}\""
    r"|[frb]{0,2}'|#|//|\^+\s*$|[~^ ]+$)"
)
_CODE_SHAPED = re.compile(
    r"^\s{4,}(?:raise\b|assert\b|\w+ = [frb]{0,2}[\"']|[frb]{1,2}[\"']|[\"'].*[\"'],?\s*\)?$|logger\.|TORCH_CHECK"
    r"|TLLM_|throw )"
)
_ADVICE_HEAD = re.compile(r"(?i)^\s*(?:possible solutions?|suggestions?|hints?|troubleshooting)\s*:\s*$")
_ADVICE_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s|^\s*Open an issue on GitHub")
_SPACE_RUN = re.compile(r"\s+")


@dataclass(slots=True)
class Shown:
    """A line as the rules see it; the parts are worked out once, however many signatures ask."""

    no: int
    raw: str
    """Without colour codes, with prefixes."""
    before: Callable[[int], Iterator[bytes]]
    _clean: CleanLine | None = field(default=None)
    _masked: str | None = field(default=None)
    _noise: bool | None = field(default=None)
    _echo: bool | None = field(default=None)

    @property
    def clean(self) -> CleanLine:
        if self._clean is None:
            self._clean = clean(self.raw, stripped=True)
        return self._clean

    @property
    def masked(self) -> str:
        """Prefixes kept, contents of lists of accepted values and of prompts removed."""
        if self._masked is None:
            low = self.raw.lower()
            text = _LIST.sub(r"\1\2[]", self.raw) if any(word in low for word in _LIST_WORDS) else self.raw
            self._masked = _PROMPT.sub(r"\1''", text) if any(word in low for word in _PROMPT_WORDS) else text
        return self._masked

    @property
    def is_noise(self) -> bool:
        """A dump, an access log entry or an item of an advice block."""
        if self._noise is None:
            self._noise = _DUMP.search(self.clean.text) is not None or self._is_advice()
        return self._noise

    @property
    def is_echo(self) -> bool:
        """Source code printed by a traceback, a compiler or a debugger."""
        if self._echo is None:
            self._echo = self._looks_like_source()
        return self._echo

    def _looks_like_source(self) -> bool:
        text = self.clean.text
        if _CODE_SHAPED.match(text):
            return True
        if not text.startswith((" ", "│", "❱", "|")):
            return False
        above = next(self.rows_above(1), None)
        if above is not None and _FRAME.match(above.text):
            return True
        return _SOURCE.match(text) is not None and above is not None and above.text.startswith((" ", "│", "❱"))

    def _is_advice(self) -> bool:
        if not _ADVICE_ITEM.match(self.clean.text):
            return False
        for row in self.rows_above(10):
            if _ADVICE_HEAD.match(row.text):
                return True
            if row.text and not _ADVICE_ITEM.match(row.text):
                return False
        return False

    def rows_above(self, count: int) -> Iterator[CleanLine]:
        """Lines above, nearest first; where this line names its process, only lines of that process."""
        process = self.clean.process
        for raw in self.before(count if process is None else count * 8):
            row = clean(raw.decode("utf-8", "replace"), stripped=True)
            if process is None or row.process == process:
                yield row
                count -= 1
                if not count:
                    return


def proves(signature: Signature, line: Shown) -> dict[str, str] | None:
    """Evidence (named groups of the regex, often empty) where the line proves the signature, else None.

    `min_count` and `multiline` are the caller's: they need more than one line.
    """
    raw = line.raw
    if not holds(signature, raw):
        return None
    if not signature.source_echo and line.is_echo:
        return None
    if line.is_noise or not holds(signature, line.masked):
        return None
    evidence: dict[str, str] = {}
    if signature.pattern is not None:
        match = signature.pattern.search(line.clean.text) or signature.pattern.search(raw)
        if match is None:
            return None
        evidence = {name: value for name, value in match.groupdict().items() if value}
    if signature.before is not None and not _stood_above(signature.before, line):
        return None
    if signature.not_before is not None and _stood_above(signature.not_before, line):
        return None
    return evidence


def holds(signature: Signature, text: str) -> bool:
    """The literal part alone: all of `contains`, one of `any_of`, none of `not_contains`."""
    return (
        all(literal in text for literal in signature.contains)
        and (not signature.any_of or any(literal in text for literal in signature.any_of))
        and not any(literal in text for literal in signature.not_contains)
    )


def _stood_above(wanted: Before, line: Shown) -> bool:
    return _any_in(wanted.any_of, line.rows_above(wanted.within))


def _any_in(literals: Iterable[str], rows: Iterable[CleanLine]) -> bool:
    literals = tuple(literals)
    return any(literal in row.text for row in rows for literal in literals)
