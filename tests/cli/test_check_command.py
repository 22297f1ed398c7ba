"""`sweeper check`: what it prints and how it exits, against servers that know a golden file by heart."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))

from checking_server import Answer, golden, served, vllm

from sweeper.canary.golden import save
from sweeper.cli.main import main


def answers(route: str, body: dict[str, Any]) -> Answer:
    return vllm(body) if route == "/v1/completions" else (404, {"error": "no such route"})


def shifted(route: str, body: dict[str, Any]) -> Answer:
    """Every prompt token 0.05 nats too unlikely."""
    status, content = answers(route, body)
    rows = content["choices"][0].get("prompt_logprobs") if status == 200 else None
    for row in rows[1:] if rows else ():
        for entry in row.values():
            entry["logprob"] -= 0.05
    return status, content


@pytest.fixture
def healthy() -> Iterator[str]:
    with served(answers) as url:
        yield url


@pytest.fixture
def file(tmp_path: Path) -> str:
    save(golden("nvfp4"), tmp_path / "golden.json.gz")
    return str(tmp_path / "golden.json.gz")


def test_a_right_server_ends_with_0_and_shows_every_group(
    healthy: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", healthy, "--golden", file]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("verdict: right\n")
    assert all(f"{kind} batch {n}" in shown for kind in ("prefill", "decode") for n in (1, 4, 8))
    assert "degenerate generations: 0 of 80" in shown


def test_weight_only_is_a_verdict_when_told_and_a_remark_when_not(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(shifted) as url:
        assert main(["check", url, "--golden", file]) == 0
        loose = capsys.readouterr().out
        assert main(["check", url, "--golden", file, "--weight-only", "--json"]) == 1
        strict = json.loads(capsys.readouterr().out)
    assert loose.startswith("verdict: right\n")
    assert "degraded if it multiplies weights only" in loose
    assert (strict["verdict"], strict["weight_only"]) == ("degraded", None)


def test_text_alone_is_said_to_be_text_alone(healthy: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", healthy])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].endswith(", by its text alone")
    assert "not checked: numerics" in shown


def test_a_golden_file_that_is_none_is_2_and_nobody_at_the_address_is_3(
    healthy: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text('{"schema": 1}')
    assert main(["check", healthy, "--golden", str(tmp_path / "other.json")]) == 2
    assert "other.json" in capsys.readouterr().err
    assert main(["check", "http://127.0.0.1:9", "--golden", file]) == 3
    assert "127.0.0.1:9" in capsys.readouterr().err
