"""`sweeper bench`: JSON lines as documented, tables otherwise, errors in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from servers.scripted import ScriptedServer

from sweeper.cli.main import main
from sweeper.core.errors import SweeperError
from sweeper.core.points import DecodePoint, Energy, Quantiles
from sweeper.core.presets import PRESETS, LoadResult, RunFigure, distinct, preset
from sweeper.core.presets_tables import render_preset_table
from sweeper.core.values import Workload

Start = Callable[..., ScriptedServer]
FAST = ["--warmup", "0", "--isl", "40", "--no-energy"]


def bench(server: ScriptedServer, *argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run in which the server kept its script; on a busy machine it falls behind."""
    for _ in range(5):
        server.tally.late_s = 0.0
        code = main(["bench", server.url, *argv, *FAST])
        said = capsys.readouterr()
        if server.tally.late_s < 0.01:
            break
    return code, said.out, said.err


def test_json_is_one_object_per_concurrency(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(scripted(rate=400), "--concurrency", "1,3", "--osl", "40", "--json", capsys=capsys)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["concurrency"] for line in lines] == [1, 3]
    assert all(line["schema"] == 1 and line["isl"] == 40 and line["osl"] == 40 for line in lines)
    assert lines[1]["decode_tok_s"] == pytest.approx(1200, rel=0.15)
    assert lines[0]["tokens_source"] == "usage"


def test_every_json_object_can_be_held_against_claims(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    for script in ({"usage": "chunk"}, {"usage": "final", "token_ids": False}):
        code, line, _ = bench(scripted(rate=400, **script), "--osl", "40", "--json", capsys=capsys)
        assert code == 0
        assert main(["claims", "check", "--against", line, "--json"]) in (0, 1)
        assert "verdict" in capsys.readouterr().out


def test_progress_goes_to_stderr_and_the_table_to_stdout(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = bench(scripted(rate=400), "--osl", "40", capsys=capsys)
    assert code == 0
    assert out.startswith("|")
    assert "decode tok/s" in out
    assert "concurrency 1" in err


def test_a_point_that_must_not_be_ranked_exits_with_1(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", scripted(rate=400, early_stop=20).url, "--osl", "40", *FAST]) == 1
    assert "ended early" in capsys.readouterr().out


def test_the_serving_preset_gives_its_publications_columns(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = scripted(rate=800, ttft=0.01)
    code, out, _ = bench(server, "--preset", "serving-16x64x256", "--osl", "16", capsys=capsys)
    assert code == 0
    assert all(name in out for name in ("QPS", "prompt tok/s", "decode tok/s", "latency s"))
    assert "|          16 |       64 |" in out


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["http://127.0.0.1:9"], 3, "no server at http://127.0.0.1:9"),
        (["ftp://host"], 2, "not a server URL"),
        (["http://127.0.0.1:9", "--preset", "sustained"], 2, "did you mean 'sustained-decode'?"),
    ],
)
def test_errors_are_one_line(argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *argv]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_wrong_model_lists_the_right_ones(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", scripted().url, "--model", "other"]) == 2
    assert "It serves: scripted" in capsys.readouterr().err


def test_rungs_beyond_the_context_cost_no_other_rung(scripted: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = scripted(rate=2000, ttft=0.0, tokens_per_word=2.3, context=8192 + 128, tokenize=True)
    assert main(["bench", server.url, "--preset", "context-ladder", "--warmup", "0", "--no-energy"]) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line[2:].strip()[:1].isdigit()]
    assert [row.split("|")[1].strip() for row in rows] == ["2048", "4096", "8192", "16384", "28672"]
    assert ["not sent" in row for row in rows] == [False, False, False, True, True]


def test_a_rung_that_the_server_refuses_is_a_row_and_the_command_fails(
    scripted: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.probes.load import measure as module

    real = module.measure

    def measure(url: str, model: str | None, workload: Workload, **options: object) -> LoadResult:
        if workload.isl == 4096:
            raise SweeperError("the server answered the first request with an error: HTTP 500: out of memory")
        return real(url, model, workload, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "measure", measure)
    server = scripted(rate=2000, ttft=0.0, tokenize=True)
    assert main(["bench", server.url, "--preset", "context-ladder", "--warmup", "0", "--no-energy"]) == 1
    said = capsys.readouterr()
    assert said.out.count("out of memory") == 1
    assert "| 28672 |" in said.out.replace("|  28672", "| 28672")
    assert "out of memory" in said.err


def test_every_preset_has_workloads_that_name_it() -> None:
    for name in PRESETS:
        assert all(workload.preset == name for workload in preset(name).workloads)
    assert [w.isl for w in preset("context-ladder").workloads] == [2048, 4096, 8192, 16384, 28672]


def a_point(**changes: object) -> DecodePoint:
    none = Quantiles(mean=None, p50=None, p99=None)
    fields: dict[str, object] = {
        "preset": "p", "concurrency": 1, "isl": 2048, "osl": 128, "decode_tok_s": 45.9, "decode_tok_s_per_stream": 45.9,
        "serving_tok_s": 40.0, "prefill_tok_s": 362.3, "ttft_ms": none, "itl_ms": none, "chunk_gap_ms": none,
        "tokens": 127, "tokens_source": "usage", "window_s": 3.0, "acceptance": None, "server_tok_s": None,
        "client_cpu_s": 0.1, "client_bound": False,
    }  # fmt: skip
    return DecodePoint(**(fields | changes))  # type: ignore[arg-type]


def a_run(phase: str, joules: float | None, seconds: float, **changes: object) -> RunFigure:
    fields: dict[str, object] = {"phase": phase, "batch": 1, "osl": 256, "seconds": seconds, "tokens": 256.0}
    return RunFigure(**(fields | {"joules": joules, "mean_w": 220.0} | changes))  # type: ignore[arg-type]


def test_the_ladder_has_a_row_per_rung() -> None:
    text = render_preset_table("context-ladder", {"m": LoadResult(points=[a_point()], requests=[])})
    assert "| ctx  | prefill tok/s" in text.replace("|  ctx |", "| ctx  |")
    assert "362.3" in text
    assert "45.9" in text


def test_energy_runs_give_mean_deviation_and_the_gate() -> None:
    runs = [a_run("e2e", joules, 3.1) for joules in (680.0, 690.0, 700.0)]
    text = render_preset_table("energy-e2e", {"Qwen": LoadResult(points=[], requests=[], runs=runs)})
    assert "2,695.31 ± 39.06" in text
    assert "1.4 %" in text
    assert "yes" in text


def test_phases_are_compared_with_the_16_bit_row_of_the_same_batch() -> None:
    def result(prefill: float, decode: float, seconds: float) -> LoadResult:
        runs = [a_run("prefill", prefill, 0.01, osl=32), a_run("decode", decode, seconds, osl=32, tokens=32.0)]
        return LoadResult(points=[], requests=[], runs=runs)

    text = render_preset_table(
        "energy-phases", {"INT8": result(4.736, 135.724, 2.0), "FP16": result(0.924, 42.737, 0.3)}
    )
    assert "5.13x" in text
    assert "3.18x" in text
    assert "0.15x" in text
    assert "Ratios are to FP16" in text


def test_an_empty_energy_column_says_why() -> None:
    why = Energy(joules=None, joules_per_1k_tokens=None, mean_w=None, power_share=None, why="no NVML: not found")
    result = LoadResult(points=[a_point(energy=why)], requests=[])
    text = render_preset_table("sustained-decode", {"m": result})
    assert "Energy: no NVML: not found" in text
    assert "| -" in text.replace("|        -", "| -")


def test_rungs_that_one_length_makes_equal_are_measured_once(
    scripted: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted(rate=2000, ttft=0.0, tokenize=True)
    argv = ["bench", server.url, "--preset", "context-ladder", "--isl", "300", "--warmup", "0", "--no-energy", "--json"]
    assert main(argv) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["preset"], json.loads(line)["isl"]) == ("context-ladder", 300)
    assert [w.osl for w in distinct(preset("energy-e2e").workloads)] == [256, 512]


def test_a_load_run_starts_without_what_only_reports_need() -> None:
    """Start-up to the first request is part of a measurement's cost."""
    code = (
        "import sys, sweeper.cli.bench, sweeper.core.windows_json, sweeper.probes.load.measure\n"
        "print([name for name in ('scipy', 'numpy', 'pydantic') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
