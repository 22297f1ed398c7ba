"""How a scripted server that answers well is started."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTED = Path(__file__).with_name("scripted.py")


def scripted(*flags: str, program: Path | str = SCRIPTED, rate: int = 400, model: str = "m") -> tuple[str, ...]:
    """Prose at `rate` tok/s a stream under the name `model`; `flags` after that. `{port}` is for the launcher."""
    answers = ("--port", "{port}", "--text", "prose", "--rate", str(rate), "--model", model)
    return (sys.executable, str(program), *answers, *flags)
