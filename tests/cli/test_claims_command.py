"""`sweeper claims` on a simulated run at P1's conditions: four RTX PRO 6000 under WSL2, Qwen3.5-397B in NVFP4."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli.main import main
from sweeper.core import codec
from sweeper.core.effective import EffectiveConfig
from sweeper.core.identity import cell_id
from sweeper.core.points import Acceptance, DecodePoint, Energy, Quantiles
from sweeper.core.presets import RunFigure
from sweeper.core.values import Cell, Parallelism, Speculative
from sweeper.core.verdicts import Cause, Outcome, Phase, Verdict
from sweeper.core.windows_json import bench_object
from sweeper.store import rundir
from sweeper.store.eventlog import EventLog

GPU = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
MARLIN = Cell(
    engine="vllm",
    engine_version="0.19.1",
    image="vllm/vllm-openai:v0.19.1",
    model="nvidia/Qwen3.5-397B-A17B-NVFP4",
    quantization="nvfp4",
    moe_backend="marlin",
    parallelism=Parallelism(tp=4),
    name="Marlin W4A16, TP=4, no MTP",
)
PIPELINE = replace(MARLIN, parallelism=Parallelism(tp=2, pp=2), name="Marlin, TP=2 + PP=2")
MTP = replace(MARLIN, speculative=Speculative(method="mtp", tokens=2, moe_backend="auto"), name="Marlin, MTP=2")
AUTO = replace(MARLIN, moe_backend="auto", name="auto")
HOST = {"wsl": "WSL2", "driver": "575.51", "gpus": [{"name": GPU, "mig": False, "power_limit_w": 600.0}] * 4}
NONE = Quantiles(mean=None, p50=None, p99=None)


def point(
    rate: float, *, concurrency: int = 1, isl: int = 128, length: float | None = None, **more: Any
) -> DecodePoint:
    return DecodePoint(
        **{
            "preset": "sustained-decode",
            "concurrency": concurrency,
            "isl": isl,
            "osl": 1024,
            "decode_tok_s": rate,
            "decode_tok_s_per_stream": rate / concurrency,
            "serving_tok_s": None,
            "prefill_tok_s": None,
            "ttft_ms": NONE,
            "itl_ms": NONE,
            "chunk_gap_ms": NONE,
            "tokens": 1000,
            "tokens_source": "usage",
            "window_s": 30.0,
            "acceptance": Acceptance(rate=0.73, length=length) if length else None,
            "server_tok_s": rate,
            "client_cpu_s": None,
            "client_bound": False,
            **more,
        }
    )


def write_run(logs: Path, cells: Mapping[Cell, list[DecodePoint]], *, host: Mapping[str, Any] = HOST) -> None:
    """One passed launch per point; no points: one launch that writes garbage."""
    run = rundir.create(logs, "p1", b"", {"schema": 1, "host": dict(host), "hardware": {}})
    log = EventLog(run.events)

    def event(kind: str, data: dict[str, object], trial: str | None = None) -> None:
        log.append(kind, data, utc="2026-11-21T05:00:00Z", mono_s=0.0, trial=trial)

    planned = [{"id": cell_id(cell), "cell": codec.dump(cell)} for cell in cells]
    event("planned", {"cells": planned, "excluded": []})
    for cell, points in cells.items():
        for n, one in enumerate(points or [None], start=1):
            trial, cid = f"{cell_id(cell)}-{n}", cell_id(cell)
            event("trial_started", {"cell_id": cid, "attempt": n}, trial)
            verdict = Verdict(
                cell_id=cid,
                trial=trial,
                outcome=Outcome.PASS if one else Outcome.FAIL,
                phase=Phase.STOP if one else Phase.SANITY,
                cause=None if one else Cause(id="garbage-output", means="the text is no language"),
                effective=EffectiveConfig(
                    engine_version="0.19.1", moe_backend=None if cell is AUTO else cell.moe_backend
                ),
                points=(one,) if one else (),
            )
            event("trial_finished", {"verdict": codec.dump(verdict)}, trial)
    log.close()


P1 = {
    MARLIN: [point(50.3), point(50.6), point(50.4)],
    PIPELINE: [point(48.8), point(49.1), point(49.0)],
    MTP: [point(39.2, length=1.46), point(39.9, length=1.47), point(39.5, length=1.46)],
    AUTO: [],
}


@pytest.fixture
def p1(tmp_path: Path) -> Path:
    write_run(tmp_path, P1)
    return tmp_path


def checked(logs: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["claims", "check", "--logs", str(logs), "--json", "p1", *more])
    return code, {item["id"]: item for item in json.loads(capsys.readouterr().out)}


def test_the_published_figures_are_met_with_their_interval(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    best = told["p1-marlin-tp4"]
    assert (best["verdict"], best["claimed"]) == ("met", 50.5)
    assert best["measured"] == pytest.approx(50.43, abs=0.01)
    assert best["interval"][0] < 50.43 < best["interval"][1]
    assert told["p1-marlin-tp2-pp2"]["verdict"] == "met"
    assert (told["p1-marlin-mtp2"]["verdict"], told["p1-marlin-mtp2"]["claimed"]) == ("met", [39.0, 40.0])
    assert told["p1-ceiling"]["verdict"] == "met"
    assert told["p1-mtp2-acceptance"]["verdict"] == "met"


def test_130_to_150_without_mtp_is_not_met_and_by_how_much(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = checked(p1, capsys)
    without = told["p1-community-130-150.no-mtp"]
    assert (code, without["verdict"]) == (1, "not met")
    assert "39% of 130" in without["why"]
    assert "2.6 times" in without["why"]


def test_130_to_150_as_published_has_to_be_asked_about(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    asked = told["p1-community-130-150"]
    assert asked["verdict"] == "unknown condition"
    assert asked["ask"] == ["with or without speculative decoding (MTP), and with how many drafts?"]


def test_a_claim_with_mtp_is_not_held_against_a_cell_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, {MARLIN: P1[MARLIN]})
    _, told = checked(tmp_path, capsys)
    for name in ("p1-community-130-150.mtp", "p1-marlin-mtp2"):
        assert (told[name]["verdict"], told[name]["difference"]) == ("not comparable", "speculative")
        assert "claimed with mtp, measured with none" in told[name]["why"]


def test_282_is_implausible_without_mtp_and_explained_with_it(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    plain, drafted = told["lda-k64-282.no-mtp"], told["lda-k64-282.mtp3"]
    assert plain["verdict"] == "implausible"
    assert "assumed:" in plain["why"]
    assert drafted["verdict"] == "not comparable"
    assert "needs 2.6 of at most 4 accepted tokens a step" in drafted["why"]
    assert "retracted: the author: thinking on" in drafted["why"]


def test_658_is_recognised_as_a_total(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    typed, quoted = told["inferencex-tp4-c1-total"], told["inferencex-tp4-c1-total.quoted-as-output"]
    assert (typed["verdict"], typed["difference"]) == ("not comparable", "engine")
    assert quoted["verdict"] == "mislabelled"
    for one in (typed, quoted):
        assert "73.1 tok/s of output at 8192/1024" in one["why"]


def test_garbage_is_not_a_figure(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    assert told["p1-auto"]["verdict"] == "not measured"
    assert "FAIL in sanity (garbage-output)" in told["p1-auto"]["why"]


def test_other_peoples_conditions_are_never_refuted(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    first = {name: told[name]["difference"] for name in ("lda-marlin-tp4", "wiki-sglang-b12x-c1", "malaiwah-plain-c8")
             if name in told}  # fmt: skip
    assert first == {"lda-marlin-tp4": "engine_version", "wiki-sglang-b12x-c1": "engine"}
    assert told["wiki-vllm-c1"]["difference"] == "gpu"
    assert told["malaiwah-plain-c2"]["difference"] == "concurrency"
    assert told["tokenspeed-8x-b200"]["difference"] == "gpu"
    assert told["p4-2048-generation"]["difference"] == "model"


def test_every_verdict_is_given_to_a_shipped_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = {**P1, PIPELINE: [point(64.0), point(64.2), point(64.1)], MTP: [point(30.0), point(30.1), point(30.2)]}
    write_run(tmp_path, fast)
    _, told = checked(tmp_path, capsys)
    assert {item["verdict"] for item in told.values()} == {
        "met", "not met", "above", "below", "not comparable", "unknown condition", "implausible", "mislabelled",
        "not measured",
    }  # fmt: skip
    assert told["p1-marlin-tp2-pp2"]["verdict"] == "above"
    assert told["p1-marlin-mtp2"]["verdict"] == "below"
    assert told["p1-ceiling"]["verdict"] == "not met"


def test_the_table_names_the_first_difference_and_shows_all_claims_of_the_setting(
    p1: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["claims", "check", "p1", "--logs", str(p1)]) == 1
    out = capsys.readouterr().out
    assert out.index("\nNOT MET\n") < out.index("\nNOT COMPARABLE\n")
    row = next(line for line in out.splitlines() if line.strip().startswith("wiki-sglang-b12x-c1 "))
    assert "engine: claimed with sglang, measured with vllm" in row
    block = out[out.index("Published for Qwen3.5-397B-A17B, nvfp4, 4x") :]
    names = [line.split()[-1] for line in block.splitlines() if "=  " in line or "= " in line]
    assert "wiki-sglang-b12x-c1" in names
    assert "p1-marlin-tp4" not in names, "a retelling counts once"
    assert "ours: Marlin W4A16, TP=4, no MTP, concurrency 1" in block
    assert "are about something else (" in out


def test_json_says_where_our_figure_stands(p1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = checked(p1, capsys)
    others = told["p1-marlin-tp4"]["others"]
    assert others["claims"] == len(others["ids"])
    assert (others["lowest"], others["highest"]) == (1.4, 108.1)
    assert others["below_ours"] == sum(told[name]["claimed"] < 50 if isinstance(told[name]["claimed"], float)
                                       else told[name]["claimed"][1] < 50 for name in others["ids"])  # fmt: skip


def test_a_run_without_wsl_is_other_conditions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, P1, host={**HOST, "wsl": None})
    _, told = checked(tmp_path, capsys)
    assert (told["p1-marlin-tp4"]["verdict"], told["p1-marlin-tp4"]["difference"]) == ("not comparable", "os")


def test_nothing_is_said_about_claims_on_a_machine_without_gpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Cell(engine="vllm", model="./tiny", quantization="bf16", moe_backend="auto")
    write_run(tmp_path, {tiny: [point(20.0)]}, host={"wsl": None, "gpus": []})
    code, told = checked(tmp_path, capsys)
    assert code == 0
    assert {item["verdict"] for item in told.values()} == {"not comparable", "implausible", "mislabelled"}


def test_energies_of_both_phases_come_from_the_stored_repetitions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell(engine="transformers", model="Qwen/Qwen2.5-3B", quantization="bnb-8bit", quantization_flag="bnb-8bit")
    host = {"wsl": None, "gpus": [{"name": "NVIDIA RTX PRO 6000 Blackwell Server Edition", "power_limit_w": 600.0}]}
    write_run(tmp_path, {cell: [point(12.0, preset="energy-phases", osl=32)]}, host=host)
    prefill = RunFigure(phase="prefill", batch=1, osl=32, seconds=0.1, tokens=128, joules=6.7)
    decode = RunFigure(phase="decode", batch=1, osl=32, seconds=2.6, tokens=32, joules=240.0)
    folder = rundir.find(tmp_path, "p1").trial(f"{cell_id(cell)}-1")
    folder.mkdir(parents=True, exist_ok=True)
    rundir.append_requests(folder / "requests.jsonl.gz", [{"run": codec.dump(one)} for one in (prefill, decode)])
    _, told = checked(tmp_path, capsys)
    row = {name: told[f"p3-qwen2.5-3b-b1-int8-{name}"] for name in ("prefill-energy", "decode-energy", "rate")}
    assert {name: item["verdict"] for name, item in row.items()} == {
        "prefill-energy": "met",
        "decode-energy": "above",
        "rate": "met",
    }
    assert row["rate"]["measured"] == pytest.approx(32 / 2.6)


OWN = """
table: a vendor
source: {title: Launch blog, where: vendor page, date: 2026-11}
conditions: {model: nvidia/Qwen3.5-397B-A17B-NVFP4, quantization: nvfp4, gpu: RTX PRO 6000 Blackwell, gpus: 4,
             engine: vllm, speculative: none, concurrency: 8}
claims:
  - {id: own-total, value: 450, conditions: {isl: 128, osl: 1024}}
  - {id: own-stream, value: 50}
  - {id: own-upto, value: 410, bound: up-to}
  - {id: own-floor, value: 390, bound: at-least}
  - {id: own-promise, value: 800, promised: true}
  - {id: own-chunks, value: 200, conditions: {speculative: mtp, draft_tokens: 2}}
  - {id: own-dense, value: 4000}
"""


def test_own_claims_are_judged_and_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = point(400.0, concurrency=8, series_tok_s=(395.0, 405.0, 412.0))
    write_run(tmp_path, {MARLIN: [plain], MTP: [point(500.0, concurrency=8, length=2.5)]})
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "vendor.yaml").write_text(OWN)
    _, told = checked(tmp_path, capsys, "--claims", str(tmp_path / "own"), "--id", "own-*")
    assert {name: item["verdict"] for name, item in told.items()} == {
        "own-total": "mislabelled",
        "own-stream": "mislabelled",
        "own-upto": "met",
        "own-floor": "met",
        "own-promise": "not met",
        "own-chunks": "mislabelled",
        "own-dense": "implausible",
    }
    assert "50.0 tok/s" not in told["own-total"]["why"]
    assert "450 tok/s of input and output together is 400.0 tok/s of output" in told["own-total"]["why"]
    assert "one stream is quoted as the sum" in told["own-stream"]["why"]
    assert "chunks were counted as tokens" in told["own-chunks"]["why"]
    assert "no assumption is needed for that; measured: Marlin" in told["own-dense"]["why"]
    assert told["own-dense"]["measured"] == 400.0


BENCH: dict[str, Any] = {
    "schema": 1, "preset": "sustained-decode", "concurrency": 1, "isl": 128, "osl": 1024, "decode_tok_s": 50.4,
    "decode_tok_s_per_stream": 50.4, "serving_tok_s": None, "prefill_tok_s": None,
    "ttft_ms": {"mean": 1, "p50": 1, "p99": 1}, "itl_ms": {"mean": 1, "p50": 1, "p99": 1},
    "chunk_gap_ms": {"mean": 1, "p50": 1, "p99": 1}, "tokens": 1, "tokens_source": "usage", "window_s": 30.0,
    "acceptance": None, "server_tok_s": None, "client_cpu_s": None, "client_bound": False,
}  # fmt: skip
SETS = [
    "model=nvidia/Qwen3.5-397B-A17B-NVFP4", "quantization=nvfp4", "gpu=RTX PRO 6000 Blackwell", "gpus=4", "engine=vllm",
    "moe_backend=marlin", "tp=4", "speculative=none", "os=wsl2",
]  # fmt: skip


def test_one_measured_server_with_conditions_given_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.json").write_text(json.dumps(BENCH) + "\n")
    flags = [word for pair in SETS for word in ("--set", pair)]
    code = main(["claims", "check", "--against", str(tmp_path / "m.json"), "--json", *flags])
    told = {item["id"]: item for item in json.loads(capsys.readouterr().out)}
    assert code == 1
    assert told["p1-marlin-tp4"]["verdict"] == "met"
    assert "one launch, no spread" in told["p1-marlin-tp4"]["why"]
    spread = BENCH | {"tokens_exact": False}
    (tmp_path / "m2.json").write_text(json.dumps(spread) + "\n")
    main(["claims", "check", "--against", str(tmp_path / "m2.json"), "--json", *flags])
    other = {item["id"]: item for item in json.loads(capsys.readouterr().out)}
    assert "at the end of each stream" in other["p1-marlin-tp4"]["why"]
    arriving = BENCH | {"rate": 10.0, "decode_tok_s": None, "serving_tok_s": 50.4}
    (tmp_path / "m3.json").write_text(json.dumps(arriving) + "\n")
    main(["claims", "check", "--against", str(tmp_path / "m3.json"), "--json", *flags])
    told_open = [item["verdict"] for item in json.loads(capsys.readouterr().out) if item["measured"] is not None]
    assert set(told_open) <= {"unknown condition"}, "requests that arrive keep no number of streams"
    (tmp_path / "c.yaml").write_text("\n".join(pair.replace("=", ": ", 1) for pair in SETS))
    main(["claims", "check", "--against", str(tmp_path / "m.json"), "--json", "--conditions", str(tmp_path / "c.yaml")])
    assert {item["id"]: item for item in json.loads(capsys.readouterr().out)} == told


def test_what_nobody_recorded_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.json").write_text(json.dumps(BENCH) + "\n")
    main(["claims", "check", "--against", str(tmp_path / "m.json"), "--json", "--id", "p1-marlin-tp4"])
    (told,) = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "unknown condition"
    assert "our own record does not say: GPU" in told["ask"]
    assert len(told["ask"]) > 2 and told["why"].count("our own record does not say: ") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "check needs a run, or --against FILE"),
        (["check", "no-such-run"], "no run 'no-such-run'"),
        (["plan"], "plan needs a claim's id"),
        (["plan", "p1-marlin-tp5"], "did you mean p1-marlin-tp4"),
        (["list", "--id", "zzz"], "no claim matches zzz"),
        (["check", "x", "--set", "tp=4"], "go with --against"),
        (["check", "--against", "missing.json"], "missing.json: cannot be read"),
        (["check", "--against", '{"schema": 2}'], "schema 2 is of a newer sweeper"),
        (["check", "--against", "{nope"], "not JSON"),
        (["check", "--against", "{}", "--set", "tpp=4"], "'tpp' is not a condition; did you mean 'tp'?"),
        (["check", "--against", "{}", "--set", "tp=four"], "tp: needs a whole number, got 'four'"),
        (["list", "--claims", "no-folder"], "no-folder: no such folder"),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["claims", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_the_list_has_a_source_for_every_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert all(item["source"]["title"] and item["source"]["where"] for item in listed)
    assert main(["claims", "list", "p1"]) == 0
    out = capsys.readouterr().out
    assert "P1 MoE backend sweep (15 figures; 2026-03)" in out
    assert "P3" not in out


def test_a_plan_is_written_once_and_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "test.yaml"
    assert main(["claims", "plan", "p1-community-130-150", "--out", str(file)]) == 0
    assert main(["plan", str(file)]) == 0
    out = capsys.readouterr().out
    assert "marlin" in out
    assert "mtp3" in out
    assert main(["claims", "plan", "p1-marlin-tp4", "--out", str(file)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_bench_prints_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    energy = Energy(joules=1.0, joules_per_1k_tokens=2660.0, mean_w=221.0, power_share=0.37)
    measured = point(39.5, length=1.5, energy=energy, series_tok_s=(39.0, 40.0), errors=("1 stream: reset",))
    (tmp_path / "m.json").write_text(json.dumps(bench_object(measured)) + "\n")
    flags = [word for pair in SETS for word in ("--set", pair.replace("=none", "=mtp"))]
    main(["claims", "check", "--against", str(tmp_path / "m.json"), *flags, "--set", "draft_tokens=2", "--json"])
    told = {item["id"]: item for item in json.loads(capsys.readouterr().out)}
    assert told["p1-marlin-mtp2"]["verdict"] == "met"
    assert told["p1-mtp2-acceptance"]["measured"] == pytest.approx(73.0)


@pytest.mark.parametrize("wide", [80, 100, 200])
def test_claims_are_told_within_the_terminal(
    wide: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    (tmp_path / "m.json").write_text(json.dumps(BENCH) + "\n")
    main(["claims", "check", "--against", str(tmp_path / "m.json"), "--all"])
    checked = capsys.readouterr().out
    assert "UNKNOWN CONDITION" in checked
    assert max(map(len, checked.splitlines())) <= max(wide, 110)
    told = [line for line in checked.splitlines() if "our own record does not say: " in line]
    assert told and all(len(line) <= wide for line in told)
    main(["claims", "list"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= max(wide, 100)
