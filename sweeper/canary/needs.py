"""The packages that building a canary needs and the rest of the program does not."""

from __future__ import annotations

import importlib.util

from sweeper.core.errors import EnvironmentNotReady

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers")


def missing() -> list[str]:
    """Those of the packages that this Python lacks."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def require() -> None:
    """Raises EnvironmentNotReady with the command that installs what is missing."""
    lacking = missing()
    if lacking:
        raise EnvironmentNotReady(
            f"building a canary needs {', '.join(lacking)}",
            hint="pip install 'sweeper[canary]'   (a CPU build of torch is enough)",
        )
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise EnvironmentNotReady(
            f"building a canary needs transformers 5, found {transformers.__version__}",
            hint="pip install 'transformers>=5.0'",
        )
