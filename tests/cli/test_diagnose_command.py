"""`sweeper diagnose` and `sweeper signatures` from the outside."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import zstandard

from sweeper.cli.main import main

BAD = (
    "(EngineCore pid=7) ERROR 11-02 02:02:45 [core.py:1231] ValueError: moe_backend='marlin' is not supported for "
    "unquantized MoE. Expected one of ['triton'].\n"
)
HEALTHY = "INFO:     Application startup complete.\n"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.log"
    path.write_text(BAD)
    return path


def test_a_cause_exits_1_and_fits_80_columns(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "moe-backend-rejected" in out
    assert "line 1" in out
    assert max(len(row) for row in out.splitlines()[1:]) <= 80


def test_a_healthy_log_exits_0(tmp_path: Path) -> None:
    path = tmp_path / "ok.log"
    path.write_text(HEALTHY)
    assert main(["diagnose", str(path)]) == 0


def test_json_has_the_documented_keys(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["diagnose", "--json", str(bad), str(bad)])
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2
    assert {"schema", "file", "engine", "engine_version", "verdict", "cause", "also", "effective", "lines"} <= set(
        rows[0]
    )
    assert {"id", "line_no", "line", "means", "try", "source"} <= set(rows[0]["cause"])
    assert (rows[0]["schema"], rows[0]["verdict"], rows[0]["lines"]) == (1, "fatal", 1)


def test_packed_logs_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(BAD.encode()))
    (tmp_path / "a.zst").write_bytes(zstandard.compress(BAD.encode()) * 2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))
    assert main(["diagnose", "--json", str(tmp_path / "a.gz"), str(tmp_path / "a.zst"), "-"]) == 1
    assert [json.loads(row)["lines"] for row in capsys.readouterr().out.splitlines()] == [1, 2, 1]


def test_utf16_of_a_windows_shell_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text(BAD, encoding="utf-16")
    assert main(["diagnose", str(path)]) == 1


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
def test_a_truncated_archive_says_so(pack: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import random

    draw = random.Random(1)
    text = (BAD + "".join(f"line {draw.random()}\n" for _ in range(90_000))).encode()
    packed = pack(text)  # type: ignore[operator]
    (tmp_path / "t").write_bytes(packed[: len(packed) // 2])
    assert main(["diagnose", str(tmp_path / "t")]) == 1
    assert "not read to its end" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"\x7fELF\x01\x02\x03\x04\x05\x06" * 900], ids=["missing", "binary"])
def test_what_cannot_be_read_exits_2(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    assert main(["diagnose", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_control_characters_and_secrets_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.log"
    token = "hf_" + "abcdEFGH" * 4
    path.write_text(BAD.replace("ValueError", f"\x1b]0;title\x07\x1b[2J\x9b31m\u202e{token} ValueError"))
    main(["diagnose", str(path)])
    main(["diagnose", "--json", str(path)])
    out = capsys.readouterr().out
    assert token not in out
    assert not any((ord(char) < 32 and char != "\n") or char in "\x9b\u202e" for char in out)


def test_signatures_are_listed_shown_and_tested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signatures"]) == 0
    assert main(["signatures", "show", "port-in-use"]) == 0
    assert main(["signatures", "test", "port-in-use"]) == 0
    assert "port-in-use" in capsys.readouterr().out
    assert main(["signatures", "show", "no-such-id"]) == 2


def test_own_signatures_are_used_and_their_mistakes_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sigs"
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "- id: own-cause\n  severity: fatal\n  contains: ['purple smoke']\n  means: 'the board is on fire'\n"
        "  try: 'unplug'\n  source: 'seen'\n  examples: {match: ['ERROR purple smoke']}\n"
    )
    log = tmp_path / "l.log"
    log.write_text("ERROR purple smoke\n")
    assert main(["diagnose", "--signatures", str(folder), str(log)]) == 1
    assert "own-cause" in capsys.readouterr().out
    (folder / "own.yaml").write_text("- id: own-cause\n  severity: odd\n")
    assert main(["diagnose", "--signatures", str(folder), str(log)]) == 2
    assert "own.yaml:2" in capsys.readouterr().err
