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
    outcomes = native.verdicts()
    assert "ran" in outcomes.values(), outcomes
    failures = [text for text in outcomes.values() if text.startswith("FAIL")]
    assert any("moe-backend-rejected" in text for text in failures), outcomes
    assert any("cpu-numa-nodes-insufficient" in text for text in failures), outcomes
    for row in native.report["unranked"]:
        if row["outcome"] == "FAIL":
            assert row["evidence"], row
            assert row["line"], row


@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_requested_auto_shows_what_really_ran(native: Swept) -> None:
    rows = [row for row in native.report["ranking"] if row["requested"]["MoE backend"] == "auto"]
    if not rows:
        pytest.skip("every window was spoiled by other work on this machine; nothing is ranked")
    assert rows[0]["effective"]["MoE backend"] == "cpu"
    assert rows[0]["effective"]["version"] == "0.32.0"


@pytest.mark.engine
@pytest.mark.timeout(1500)
def test_tokens_are_the_servers_own_and_agree_with_its_counter(native: Swept) -> None:
    for row in native.report["ranking"]:
        for point in row["points"]:
            assert point["tokens_source"] == "usage"
            # Two tokens a stream at either end of the interval and the length of a scrape, at most 5 % of it, are not
            # known; counting chunks for tokens, or prefill for decode, would be off by far more.
            if point["server_difference"] is not None:
                assert abs(point["server_difference"]) < 0.07


@pytest.mark.docker
@pytest.mark.engine
@pytest.mark.timeout(1800)
def test_docker_gives_the_same_verdicts(native: Swept, tmp_path: Path) -> None:
    in_docker = sweep(SHORT, tmp_path, "--launcher", "docker", "--image", IMAGE)
    assert in_docker.verdicts() == native.verdicts()
