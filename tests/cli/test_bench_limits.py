"""`sweeper bench --limit`: a server measured by hand beside what its weights and its GPU allow."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from servers.scripted import ScriptedServer

from sweeper.cli.main import main

Start = Callable[..., ScriptedServer]
FAST = ["--warmup", "0", "--isl", "40", "--osl", "40", "--no-energy"]
BIG = "model=nvidia/Qwen3.5-397B-A17B-NVFP4,gpu=RTX PRO 6000 Blackwell,quantization=nvfp4,tp=4"


def test_a_point_has_its_share_of_the_limit(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = scripted(rate=90)
    assert main(["bench", server.url, "--json", "--limit", BIG, *FAST]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["limit"]["term"] == "dense"
    assert found["limit"]["share"] == pytest.approx(found["decode_tok_s"] / found["limit"]["limit_tok_s"], rel=1e-3)
    assert main(["bench", server.url, "--limit", BIG, *FAST]) == 0
    assert "largest term dense weights" in capsys.readouterr().out


def test_a_rate_that_no_bandwidth_allows_is_no_record(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", scripted(rate=900).url, "--json", "--limit", BIG, *FAST]) == 1
    (why,) = json.loads(capsys.readouterr().out)["invalid"]
    assert "above the unconditional bound" in why


def test_drafts_belong_to_the_limit_and_bursts_that_nobody_explains_have_none(
    scripted: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    drafting = scripted(rate=600, tokens_per_chunk=3, draft_tokens=4)
    assert main(["bench", drafting.url, "--json", "--limit", BIG, *FAST]) == 0
    assert json.loads(capsys.readouterr().out)["limit"]["bound_tok_s"] > 2000
    silent = scripted(rate=600, tokens_per_chunk=3)
    assert main(["bench", silent.url, "--json", "--limit", BIG, *FAST]) == 0
    assert json.loads(capsys.readouterr().out)["limit"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu=H200", "model and gpu are needed"),
        ("model=m,gpu=H200,speed=1", "'speed' is none of"),
        ("model=nobody/knows,gpu=H200", "the shape of 'nobody/knows' is not known"),
        ("model=nvidia/Qwen3.5-397B-A17B-NVFP4,gpu=Voodoo", "no constants for the GPU 'Voodoo'"),
        ("model=nvidia/Qwen3.5-397B-A17B-NVFP4,gpu=H200,tp=0", "tp=0 is not a whole number"),
    ],
)
def test_what_is_not_known_is_said_before_anything_is_measured(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "http://127.0.0.1:9", "--limit", text]) == 2
    assert said in capsys.readouterr().err
