"""Counting with a tokenizer.json: the last rung before chunks, and the way to size prompts without asking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.scripted import ScriptedServer

from sweeper.cli.main import main
from sweeper.core.errors import UsageError
from sweeper.core.values import Workload
from sweeper.core.windows_json import bench_object
from sweeper.probes.load.measure import LoadOptions, measure
from sweeper.probes.load.retokenise import load_tokenizer, local_tokenizer, retokenised, tokenizer_count

tokenizers = pytest.importorskip("tokenizers")

Start = Callable[..., ScriptedServer]
WORK = Workload(isl=60, osl=60, concurrency=(2,), warmup_s=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose tokenizer makes pieces of at most four characters out of words."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    pieces = tokenizers.Regex(r"\S{1,4}")
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Split(pieces, "isolated")]
    )
    path = tmp_path_factory.mktemp("model")
    made.save(str(path / "tokenizer.json"))
    return path


def record(texts: list[str], **changes: object) -> dict[str, object]:
    stamps = [0.1 * i for i in range(len(texts))]
    return {"source": "chunks", "stamps": stamps, "totals": list(range(1, len(texts) + 1)), "texts": texts, **changes}


def test_a_token_belongs_to_the_event_that_completes_it(folder: Path) -> None:
    found = retokenised(record([" abcd", "ef", "gh ij", "kl"]), folder)
    assert found["source"] == "tokenizer"
    assert list(found["totals"]) == [1, 2, 3]
    assert list(found["stamps"]) == pytest.approx([0.0, 0.2, 0.3])


def test_pieces_of_a_word_in_events_of_their_own_are_not_counted_twice(folder: Path) -> None:
    assert retokenised(record(list("abcdefgh")), folder)["totals"] == [1, 2]


def test_a_stream_with_a_count_of_its_own_is_left_alone(folder: Path) -> None:
    counted = record(["ab", "cd"], source="usage")
    assert retokenised(counted, folder) == counted
    assert retokenised(record([]), folder)["source"] == "chunks"


def test_a_server_that_never_counts_gets_a_flagged_rate(scripted: Start, folder: Path) -> None:
    server = scripted(usage="none", token_ids=False, rate=200, tokens_per_chunk=3, metrics="none")
    found = measure(server.url, None, WORK, options=LoadOptions(tokenizer=folder)).points[0]
    assert found.tokens_source == "tokenizer"
    assert found.decode_tok_s_per_stream == pytest.approx(200, rel=0.15)
    assert found.invalid == ()
    shown = bench_object(found)
    assert (shown["tokens_source"], shown["tokens_exact"]) == ("tokenizer", False)
    assert "client's tokenizer" in shown["tokens_flag"]


def test_a_count_by_the_server_goes_before_the_tokenizer(scripted: Start, folder: Path) -> None:
    found = measure(scripted(rate=400).url, None, WORK, options=LoadOptions(tokenizer=folder)).points[0]
    assert found.tokens_source == "usage"


def test_the_right_tokenizer_sizes_prompts_and_a_wrong_one_is_not_used(scripted: Start, folder: Path) -> None:
    right = scripted(rate=2000, piece=4)
    notes: list[str] = []
    found = measure(right.url, None, WORK, options=LoadOptions(tokenizer=folder), on_progress=notes.append).points[0]
    assert [r["prompt_tokens"] for r in right.tally.requests[-2:]] == pytest.approx([60, 60], abs=1)
    assert len(right.tally.requests) == 5
    wrong = scripted(rate=2000, piece=2)
    found = measure(wrong.url, None, WORK, options=LoadOptions(tokenizer=folder), on_progress=notes.append).points[0]
    assert found.isl == 60
    assert "a tokenizer that differs from the server's was not used" in notes


def test_what_a_template_adds_is_part_of_the_prompt(scripted: Start, folder: Path) -> None:
    count = tokenizer_count(folder)
    assert count(["abcd efghij", "a"]) == [3, 1]
    server = scripted(rate=2000, piece=4)
    found = measure(server.url, None, WORK, options=LoadOptions(tokenizer=folder, chat=True)).points[0]
    assert found.isl == 60


def test_bench_takes_a_folder(scripted: Start, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = scripted(usage="none", token_ids=False, rate=400, metrics="none")
    argv = [
        "bench",
        server.url,
        "--tokenizer",
        str(folder),
        "--osl",
        "60",
        "--isl",
        "40",
        "--warmup",
        "0",
        "--no-energy",
    ]
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens_source"] == "tokenizer"
    assert main(argv) == 0
    assert "counted by the client's tokenizer" in capsys.readouterr().out


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "http://127.0.0.1:9", "--tokenizer", str(tmp_path)]) == 2
    assert f"no tokenizer at {tmp_path / 'tokenizer.json'}" in capsys.readouterr().err
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)
    assert local_tokenizer(tmp_path) is None


def test_weights_in_one_file_are_not_read_for_a_tokenizer(folder: Path) -> None:
    """A GGUF file of a hundred gigabytes would be read whole before it is refused."""
    assert local_tokenizer(folder) == folder
    assert local_tokenizer(folder / "tokenizer.json") is None
