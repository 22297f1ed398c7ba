"""The forms that upstream projects ask for: one file each in `data/templates`, with who it is for in its head."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib import resources
from string import Template
from typing import Any

import yaml

from sweeper.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One project's form. `text` has `$name` placeholders; `issue.issue` fills them."""

    name: str
    project: str
    tracker: str
    title: str
    engines: tuple[str, ...]
    causes: tuple[str, ...]
    text: Template


@cache
def forms() -> dict[str, Form]:
    """All forms by name, in alphabetical order."""
    folder = resources.files("sweeper.data") / "templates"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".md")), key=lambda item: item.name)
    return {form.name: form for form in (_form(item.name[:-3], item.read_text("utf-8")) for item in files)}


def _form(name: str, text: str) -> Form:
    _, head, body = text.split("---\n", 2)
    meta: dict[str, Any] = yaml.safe_load(head)
    return Form(
        name=name,
        project=meta["project"],
        tracker=meta["tracker"],
        title=meta["title"],
        engines=tuple(meta["engines"]),
        causes=tuple(meta["causes"]),
        text=Template(body),
    )


def form_for(cause: str | None, engine: str, wanted: str | None = None) -> Form:
    """The form asked for, else the one whose causes fit, else the engine's, else vLLM's. Raises UsageError."""
    known = forms()
    if wanted is not None:
        if wanted not in known:
            raise UsageError(f"no form for '{wanted}'", hint=f"Forms: {', '.join(known)}")
        return known[wanted]
    by_cause = (form for form in known.values() if any(fnmatch(cause or "", pattern) for pattern in form.causes))
    by_engine = (form for form in known.values() if engine in form.engines)
    return next(by_cause, None) or next(by_engine, None) or known["vllm"]
