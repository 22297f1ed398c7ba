"""`--gpus` means the same in every command."""

from __future__ import annotations

import argparse
import importlib

import pytest

COMMANDS = {"run": ["m.yaml"], "reproduce": ["a.tar.gz"], "bench": ["http://127.0.0.1:1"]}


def gpus(command: str, *argv: str) -> tuple[str, ...] | None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"sweeper.cli.{command}").configure(parser)
    return parser.parse_args([*COMMANDS[command], *argv]).gpus


@pytest.mark.parametrize("command", COMMANDS)
def test_gpus_are_a_list_of_ids_and_none_without_the_option(command: str) -> None:
    assert gpus(command) is None
    assert gpus(command, "--gpus", "0, GPU-8f3a,MIG-1") == ("0", "GPU-8f3a", "MIG-1")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["", ",", "0,", "0,,1", "1,1"])
def test_a_list_with_a_hole_or_a_repeat_is_refused(command: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        gpus(command, "--gpus", text)
    assert end.value.code == 2
    assert "--gpus" in capsys.readouterr().err
