"""The quickstart's short form over real vLLM: natively, then in Docker with the same verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import IMAGE, Swept, sweep

SHORT = "matrices/quickstart-cpu-short.yaml"


@pytest.fixture(scope="session")
def native(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return sweep(SHORT, tmp_path_factory.mktemp("native"))


@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_the_short_sweep_names_real_winners_and_real_failures(native: Swept) -> None:
    outcomes = native.outcomes()
    assert "PASS" in outcomes.values()
    failures = [text for text in outcomes.values() if text.startswith("FAIL")]
    assert any("moe-backend-rejected" in text for text in failures), outcomes
    assert any("cpu-numa-nodes-insufficient" in text for text in failures), outcomes
    for row in native.report["unranked"]:
        assert row["evidence"], row
        assert row["line"], row


@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_requested_auto_shows_what_really_ran(native: Swept) -> None:
    (row, *_) = [row for row in native.report["ranking"] if row["requested"]["MoE backend"] == "auto"]
    assert row["effective"]["MoE backend"] == "cpu"
    assert row["effective"]["version"] == "0.32.0"


@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_tokens_are_the_servers_own_and_agree_with_its_counter(native: Swept) -> None:
    for row in native.report["ranking"]:
        for point in row["points"]:
            assert point["tokens_source"] == "usage"
            assert point["server_tok_s"] == pytest.approx(point["decode_tok_s"], rel=0.02)


@pytest.mark.docker
@pytest.mark.engine
@pytest.mark.timeout(1800)
def test_docker_gives_the_same_verdicts(native: Swept, tmp_path: Path) -> None:
    in_docker = sweep(SHORT, tmp_path, "--launcher", "docker", "--image", IMAGE)
    assert in_docker.outcomes() == native.outcomes()
