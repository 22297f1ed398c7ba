"""The command line itself: what it lists, and how it ends."""

from __future__ import annotations

import errno
import importlib
import os

import pytest

from sweeper.cli import report
from sweeper.cli.main import COMMANDS, main


def test_the_overview_lists_every_command_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "usage: sweeper COMMAND" in said
    assert all(f"  {name} " in said for name in COMMANDS)
    assert max(map(len, said.splitlines())) <= 80


def test_no_command_is_a_usage_error_with_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reprot"]) == 2
    assert "did you mean 'report'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(COMMANDS[name][0]).run
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: sweeper {name}" in capsys.readouterr().out


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_the_machine_refuses_is_one_message(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: object) -> int:
        raise OSError(code, os.strerror(code), "/there")

    monkeypatch.setattr(report, "run", refuse)
    assert main(["report", "last"]) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"error: /there: {os.strerror(code)}"
    assert len(said) == 2


def test_a_fault_of_our_own_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        raise OSError(errno.EBADF, "bad file descriptor")

    monkeypatch.setattr(report, "run", fail)
    with pytest.raises(OSError, match="bad file descriptor"):
        main(["report", "last"])


def test_a_closed_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def closed(args: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(report, "run", closed)
    monkeypatch.setattr("os.dup2", lambda *fds: 0)
    assert main(["report", "last"]) == 0
    assert capfd.readouterr().err == ""
