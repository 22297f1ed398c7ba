"""The house rules that a machine can check: what may import what, how long things are, that every command has help."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sweeper.cli.main import COMMANDS, main

PACKAGE = Path(__file__).parent.parent / "sweeper"
MODULES = sorted(PACKAGE.rglob("*.py"))

IMPURE = {
    "os", "io", "subprocess", "socket", "time", "random", "threading", "logging", "asyncio", "multiprocessing",
    "tempfile", "shutil", "httpx", "docker", "pynvml", "requests", "urllib", "secrets", "signal", "select", "ssl",
}  # fmt: skip
CORE_MAY = {"sweeper.core"}
MAY_IMPORT = {
    "core": {"core"},
    "engines": {"core", "engines"},
    "launchers": {"core", "launchers"},
    "probes": {"core", "probes", "data"},
    "diagnosis": {"core", "engines", "diagnosis"},
    "canary": {"core", "engines", "canary", "catalogue", "data", "jsonfile"},
    "store": {"core", "store"},
    "report": {"core", "report"},
}


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import, also those inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.lineno, node.module))
    return found


def folder_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", [p for p in MODULES if folder_of(p) in ("core", "engines")], ids=lambda p: p.stem)
def test_the_core_and_the_engines_touch_nothing_outside(path: Path) -> None:
    bad = [f"{path}:{line}: imports {name}" for line, name in imports_of(path) if name.split(".")[0] in IMPURE]
    assert not bad, "core/ and engines/ are pure: no clock, file, process, network or randomness\n" + "\n".join(bad)


@pytest.mark.parametrize("path", [p for p in MODULES if folder_of(p) in ("core", "engines")], ids=lambda p: p.stem)
def test_the_core_opens_no_files(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    methods = {node.func.attr for node in calls if isinstance(node.func, ast.Attribute)}
    assert not names & {"open", "print", "input", "exec", "eval"}
    assert not methods & {"read_text", "write_text", "read_bytes", "write_bytes", "unlink", "mkdir"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_adapters_meet_only_in_the_composition_root(path: Path) -> None:
    allowed = MAY_IMPORT.get(folder_of(path))
    if allowed is None:
        return
    bad = []
    for line, name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "sweeper" and len(parts) > 1 and parts[1] not in allowed:
            bad.append(f"{path}:{line}: {folder_of(path)}/ may import {sorted(allowed)}, not {name}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400, f"{path} has {text.count(chr(10))} lines; the house limit is 400"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= 60, f"{path}:{node.lineno}: {node.name} has {size} lines; the house limit is 60"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert "usage: sweeper" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"sweeper {name}" in (PACKAGE.parent / "README.md").read_text("utf-8")


def test_an_unknown_command_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnos"]) == 2
    assert "did you mean 'diagnose'?" in capsys.readouterr().err
