"""The packages that building a canary needs and the rest of the program does not."""

from __future__ import annotations

import importlib.util

from sweeper.core.errors import EnvironmentNotReady

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers")


def require() -> None:
    """Raises EnvironmentNotReady with the command that installs what is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentNotReady(
            f"building a canary needs {', '.join(missing)}",
            hint="pip install 'sweeper[canary]'   (a CPU build of torch is enough)",
        )
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise EnvironmentNotReady(
            f"building a canary needs transformers 5, found {transformers.__version__}",
            hint="pip install 'transformers>=5.0'",
        )
