"""The speaking canary: a trained Qwen3-MoE of 9 MB that counts, adds, copies, knows a few facts and writes prose."""

from __future__ import annotations

import shutil
from pathlib import Path

from sweeper.core.errors import EnvironmentNotReady, UsageError


def speaking_dir() -> Path:
    """Folder of the shipped checkpoint: config, bf16 weights, tokenizer, `prompts.json`, `golden.json.gz`."""
    return Path(__file__).parent


def unpack(dest: Path) -> Path:
    """Copy the checkpoint to `dest`, for engines in containers or on other machines. Raises UsageError if in use,
    EnvironmentNotReady where nothing can be written."""
    if dest.is_file():
        raise UsageError(f"{dest}: a file", hint="Give a new folder")
    if dest.exists() and any(dest.iterdir()):
        raise UsageError(f"{dest}: not empty", hint="Give a new folder")
    try:
        dest.mkdir(parents=True, exist_ok=True)
        for path in speaking_dir().iterdir():
            if path.is_file() and path.suffix not in (".py", ".md"):
                shutil.copyfile(path, dest / path.name)
    except OSError as error:
        raise EnvironmentNotReady(f"{dest}: cannot be written: {error.strerror}") from None
    return dest
