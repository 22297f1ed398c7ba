"""`sweeper accuracy` and `sweeper check` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.cli.main import main


def judgements(path: Path, right: int) -> Path:
    rows = [{"question_id": i, "model": path.stem, "score": int(i < right)} for i in range(1000)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_import_prints_the_share_with_its_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accuracy", "import", str(judgements(tmp_path / "bf16.jsonl", 278))]) == 0
    assert capsys.readouterr().out == "livebench bf16: 278 of 1000 right, 27.80 % (95 %: 25.1 to 30.7 %)\n"


def test_compare_calls_a_quarter_of_a_point_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = judgements(tmp_path / "a.jsonl", 278), judgements(tmp_path / "b.jsonl", 281)
    assert main(["accuracy", "compare", str(a), str(b), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert found["difference"]["finding"] == "no difference shown"
    assert found["difference"]["points"] == pytest.approx(0.3)


def test_imported_json_can_be_compared_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["accuracy", "import", str(judgements(tmp_path / "a.jsonl", 278)), "--json"])
    own = tmp_path / "own.json"
    own.write_text(capsys.readouterr().out)
    assert main(["accuracy", "compare", str(own), str(judgements(tmp_path / "b.jsonl", 500))]) == 0
    assert "+22.20 points against a: higher" in capsys.readouterr().out


def test_a_bad_file_ends_in_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    assert main(["accuracy", "import", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ")


def test_check_of_nobody_ends_in_one_line_and_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "http://127.0.0.1:9"]) == 3
    assert "does not answer /v1/models" in capsys.readouterr().err


def test_check_takes_no_batch_that_is_not_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "http://127.0.0.1:9", "--batches", "1,x"]) == 2
    assert "--batches" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["check", "http://[::1"],
        ["check", "localhost:8000"],
        ["check", "ftp://x"],
        ["check", "http://127.0.0.1:99999"],
        ["check", "http://127.0.0.1:1", "--generations", "0"],
        ["accuracy", "run", "http://[::1", "--preset", "ppl-proxy"],
        ["accuracy", "run", "http://127.0.0.1:1", "--preset", "accuracy-40", "--concurrency", "0"],
        ["accuracy", "run", "http://127.0.0.1:1", "--preset", "accuracy-40", "--max-tokens", "-1"],
        ["canary", "build", "--like", "tiny", "--out", "x", "--layers", "0"],
        ["canary", "build", "--like", "tiny", "--out", "x", "--experts", "-2"],
        ["canary", "unpack", __file__],
    ],
)
def test_an_argument_that_cannot_be_meant_ends_with_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_canary_is_not_unpacked_where_nothing_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["canary", "unpack", "/proc/canary"]) == 3
    assert "cannot be written" in capsys.readouterr().err
