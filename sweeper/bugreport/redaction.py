"""What must not leave the machine, taken out of text and counted by kind.

Secrets by shape and by name (`core.redact`) and by value (what secret-looking variables of this environment hold); user
names, host names, home folders, addresses of local networks, e-mail addresses, hardware ids. Names are looked for in
the environment, the password database and the `/home/NAME` paths of the texts themselves. Errs on the side of hiding.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper.core.redact import MASK, is_secret_name, redact

USER, HOST, ADDRESS, EMAIL, DEVICE, HOME = "<user>", "<host>", "<address>", "<e-mail>", "<id>", "~"

COMMON = frozenset(
    "root user users ubuntu debian admin administrator docker nobody vllm sglang python model models test tests data"
    " dev runner work workspace app build core max min torch cuda gpu cpu node host server localhost vm main local"
    " public shared default home guest jenkins ec2-user opc azureuser vagrant engine worker process info error none"
    " true false localdomain nvidia triton marlin cutlass auto linux".split()
)
"""Names that say nothing about a person and are words of a log: hidden in paths, left in running text."""

_HOME_PATH = re.compile(
    r"(?P<base>(?:/home|/Users|[A-Za-z]:\\{1,2}Users|/export/home|/usr/home)[/\\]{1,2})(?P<name>[^/\\\s'\":,;)\]}<>]+)"
)
_PRIVATE_V4 = (
    r"(?:10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}|169\.254(?:\.\d{1,3}){2}"
    r"|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])(?:\.\d{1,3}){2})"
)
_ADDRESS = re.compile(
    rf"(?<![\w.=-])(?<!version )(?<!version: )(?:{_PRIVATE_V4}(?![\w.])"
    r"|(?<=//)(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?![\w.])"
    r"|(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?=:\d{2,5}\b))"
    r"|(?<![\w:])(?:fe80|f[cd][0-9a-f]{2})(?::[0-9a-f]{0,4}){2,7}(?:%\w+)?"
    r"|(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])"
)
_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b")
_AT_HOST = re.compile(r"(?P<user>(?<![\w.+-])[a-z_][a-z0-9_-]{1,31})@(?P<host>[A-Za-z][\w-]+)(?=:|\s|$)")
_INNER_HOST = re.compile(
    r"(?<![\w.-])(?:[A-Za-z0-9-]+\.)+(?:local|lan|internal|intra|intranet|corp|home|localdomain)(?![\w-])(?!\.)"
)
_DEVICE = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


_LONG = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """What is known to be private on this machine."""

    users: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    homes: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    """Named by the person: `--hide WORD`."""

    def and_of(self, texts: Iterable[str]) -> Private:
        """Also the names that home paths in these texts give away."""
        found = {match["name"] for text in texts for match in _HOME_PATH.finditer(text)}
        return replace(self, users=self.users | {name for name in found if not name.startswith("<")})

    def plain(self) -> tuple[str, ...]:
        """Literals that must not occur anywhere in what is written; words of every log are no proof and left out."""
        names = {name for name in self.users | self.hosts if _is_telling(name)}
        return tuple(sorted(names | self.secrets | self.words | {h for h in self.homes if len(h) > 5}))


def private_of(
    environs: Iterable[Mapping[str, str]], *, user: str | None, hosts: Iterable[str], home: str | None
) -> Private:
    """From environments (this one and the server's), the user of this process and the names of this machine."""
    users, homes, secrets, names = {user or ""}, {home or ""}, set(), set(hosts)
    for env in environs:
        users |= {env.get(key, "") for key in ("USER", "LOGNAME", "SUDO_USER", "USERNAME")}
        homes.add(env.get("HOME", ""))
        names |= {env.get(key, "") for key in ("HOSTNAME", "HOST", "COMPUTERNAME")}
        secrets |= {value for name, value in env.items() if is_secret_name(name) and _is_value(value)}
    users |= {match["name"] for text in homes for match in _HOME_PATH.finditer(text)}
    names |= {name.split(".")[0] for name in names}
    return Private(
        users=frozenset(filter(None, users)),
        hosts=frozenset(filter(None, names)),
        homes=frozenset(h.rstrip("/") for h in homes if h.count("/") >= 1 and len(h.rstrip("/")) > 1),
        secrets=frozenset(secrets),
    )


def _is_value(text: str) -> bool:
    return len(text) >= 8 and not text.startswith("$") and MASK not in text


def _is_telling(name: str) -> bool:
    return len(name) >= 3 and name.lower() not in COMMON and not name.isdigit()


@dataclass(slots=True)
class Redactor:
    """Masks text; `counts` tells how many replacements of each kind were made so far."""

    private: Private
    counts: Counter[str] = field(default_factory=Counter)
    _rules: list[tuple[str, re.Pattern[str], Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = self.private
        for values, mask, kind in ((known.secrets, MASK, "secrets"), (known.words, MASK, "hidden words")):
            if values:
                self._rules.append((kind, _any_of(values, flags=re.I if kind != "secrets" else 0), mask))
        rules: list[tuple[str, re.Pattern[str], Any]] = [
            ("hardware ids", _DEVICE, DEVICE),
            ("e-mail addresses", _EMAIL, EMAIL),
        ]
        if known.homes:
            rules.append(("home paths", re.compile(_any_of(known.homes).pattern + r"(?![\w.-])"), HOME))
        rules.append(("home paths", _HOME_PATH, lambda m: m[0] if m["name"].startswith("<") else m["base"] + USER))
        rules.append(("network addresses", _ADDRESS, ADDRESS))
        rules.append(("host names", _INNER_HOST, HOST))
        rules.append(("user names", _AT_HOST, f"{USER}@{HOST}"))
        for names, mask, kind in ((known.hosts, HOST, "host names"), (known.users, USER, "user names")):
            telling = [name for name in names if _is_telling(name)]
            if telling:
                pattern = rf"(?<![A-Za-z0-9]){_any_of(telling).pattern}(?![A-Za-z0-9])"
                rules.append((kind, re.compile(pattern, re.I), mask))
        self._rules += rules

    def text(self, text: str) -> str:
        """`text` without what is private; counted."""
        text = self._secrets(text)
        for kind, pattern, mask in self._rules:
            text = self._one(kind, pattern, mask, text)
        return text

    def data(self, value: Any) -> Any:
        """The same for JSON-ready data: strings inside lists and objects, keys included; secrets by key too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._named(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            if len(value) == 2 and all(isinstance(item, str) for item in value):
                # A cell keeps its environment as (name, value) pairs.
                return [self.text(value[0]), self._named(value[0], value[1])]
            return [self.data(item) for item in value]
        return value

    def _named(self, key: str, value: Any) -> Any:
        if isinstance(value, str) and is_secret_name(key) and _is_value(value):
            self.counts["secrets"] += 1
            return MASK
        return self.data(value)

    def _secrets(self, text: str) -> str:
        hidden = redact(text) if len(text) < _LONG or "-----BEGIN" in text else _by_line(text)
        if hidden != text:
            self.counts["secrets"] += max(1, hidden.count(MASK) - text.count(MASK))
        return hidden

    def _one(self, kind: str, pattern: re.Pattern[str], mask: str | Callable[[re.Match[str]], str], text: str) -> str:
        hidden, times = pattern.subn(mask if callable(mask) else (lambda match: mask), text)
        if hidden != text:
            self.counts[kind] += times
        return hidden


def _by_line(text: str) -> str:
    """For long logs: most lines hold no word that the slow patterns start from."""
    return "\n".join(map(redact, text.split("\n")))


def _any_of(words: Iterable[str], flags: int = 0) -> re.Pattern[str]:
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return re.compile("(?:" + "|".join(re.escape(word) for word in ordered) + ")", flags)


def leaks(private: Private, name: str, text: str) -> tuple[str, ...]:
    """What is still there after all: `FILE: kind`. Checked on every file before anything is written."""
    found = []
    low = text.lower()
    for word in private.plain():
        if word.lower() in low and re.search(rf"(?i)(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text):
            found.append(f"{name}: a word that is private on this machine ({len(word)} characters)")
    return tuple(found)
