"""`sweeper bugreport` and `sweeper reproduce`, end to end over servers that fail on purpose."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.bugreport import archive
from sweeper.cli.main import main
from sweeper.probes.text import prompts_for
from tests.servers.argv import SCRIPTED, scripted

TOKEN = "hf_PlantedPlantedPlanted1234"
PASSWORD = "planted-battery-staple"
USER = "plantedperson"
HOST = "plantedhost"
FATAL = (
    "(EngineCore_DP0 pid=7) ERROR 11-21 10:00:00 [core.py:10] RuntimeError: [TensorRT-LLM][ERROR] Assertion failed: "
    "Failed to initialize cutlass TMA WS grouped gemm. Error: Error Internal (/b/gemm_grouped_sm120.generated.cu:60)"
)
PLANTED = (
    f"loading /home/{USER}/models with token {TOKEN} on {HOST} at 10.9.8.7:29500",
    f"HF_TOKEN={TOKEN} {USER}@{HOST}:~$ Authorization: Bearer {TOKEN}",
    f"by {USER.title()} with {PASSWORD}, mail {USER}@smith.example",
)


def cell(name: str, *flags: str, say: tuple[str, ...] = ()) -> dict[str, Any]:
    lines = [word for number, line in enumerate(say) for word in ("--log-line", f"{number / 20}:{line}")]
    argv = scripted(f"--cell={name}", *lines, *flags, program="{server}", model="{served_model}")
    return {"command": [*argv], "name": name}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one cell that fails, one that passes; secrets and names are all over it."""
    base = tmp_path_factory.mktemp("swept")
    server = base / "server.py"
    shutil.copyfile(SCRIPTED, server)
    cells = [
        cell("broken", "--hang", say=(*PLANTED, FATAL)),
        cell("fine"),
        cell("dies", "--hang", "--exit-after", "0.3", "--exit-code", "3", say=PLANTED[:1]),
    ]
    for one in cells:
        one["command"] = [str(server) if word == "{server}" else word for word in one["command"]]
    document = {
        "title": f"A sweep of {USER}",
        "engine": "command",
        "model": f"/home/{USER}/models/m",
        "env": {"MY_API_KEY": PASSWORD, "VLLM_NOTE": f"set by {USER}"},
        "cells": cells,
        "workloads": [{"name": "d", "isl": 16, "osl": 48, "concurrency": [1], "window_s": 0.3, "warmup_s": 0}],
        "policy": {"deadlines": {"ready_s": 20, "stop_s": 3}},
    }
    matrix = base / "matrix.yaml"
    matrix.write_text(yaml.safe_dump(document, width=10_000), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        patch.setattr("sweeper.checkpoint.model_problem", lambda model: None)
        assert main(["run", str(matrix), "--logs", str(base / "logs")]) == 1
    return base / "logs"


def plant(patch: pytest.MonkeyPatch) -> None:
    for name, value in {"USER": USER, "LOGNAME": USER, "HOSTNAME": HOST, "HF_TOKEN": TOKEN}.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch)
    monkeypatch.chdir(tmp_path)


def trial(swept: Path, name: str) -> str:
    (run,) = swept.iterdir()
    for line in (run / "events.jsonl").read_text("utf-8").splitlines():
        event = json.loads(line)
        if event["type"] == "trial_started" and event["data"]["label"] == name:
            return str(event["trial"])
    raise AssertionError(name)


def report(swept: Path, out: Path, *more: str, name: str = "broken") -> Path:
    assert main(["bugreport", trial(swept, name), "--logs", str(swept), "--yes", "--out", str(out), *more]) == 0
    return out


def every_byte(path: Path) -> bytes:
    """Names and contents of all members, with whatever is packed inside them unpacked too."""
    data = [path.read_bytes(), path.name.encode()]
    for name, content in archive.read(path).files.items():
        data += [name.encode(), content]
        if name.endswith(".gz"):
            data.append(gzip.decompress(content))
        if name.endswith(".pyz"):
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                data += [inner.read(member) for member in inner.namelist()]
    return b"\n".join(data)


@pytest.mark.parametrize("name", ["r.tar.gz", "r.zip"])
@pytest.mark.parametrize("cell_name", ["broken", "dies"])
def test_nothing_planted_is_anywhere_in_the_archive(swept: Path, tmp_path: Path, name: str, cell_name: str) -> None:
    raw = b"".join(path.read_bytes() for path in swept.rglob("*") if path.is_file())
    whole = every_byte(report(swept, tmp_path / name, name=cell_name)).lower()
    for secret in (TOKEN, PASSWORD, USER, HOST, "10.9.8.7"):
        assert secret.lower().encode() in raw.lower(), "the test itself lost its secret"
        assert secret.lower().encode() not in whole


def test_the_archive_holds_what_an_engineer_asks_for(swept: Path, tmp_path: Path) -> None:
    found = archive.read(report(swept, tmp_path / "r.tar.gz")).files
    text = found["issue.md"].decode()
    assert text.startswith("[BUG] cutlass-tma-ws-grouped-gemm-init: broken")
    assert "**Steps/Code to reproduce bug**" in text
    assert "Failed to initialize cutlass TMA WS grouped gemm" in text
    assert "Line 4 of the log" in text
    assert "| fine | PASS |" in text
    assert ">     4  " in found["log-excerpt.txt"].decode()
    assert FATAL.encode() in gzip.decompress(found["server.log.gz"])
    assert json.loads(found["diagnosis.json"])["cause"]["line_no"] == 4
    assert json.loads(found["manifest.json"])["schema"] == 1
    assert json.loads(found["reproducer/cell.json"])["python"] is None
    for needed in ("environment.txt", "command.txt", "configuration.json", "cells.md", "reproducer/reproduce.sh"):
        assert found[needed], needed


def test_the_same_trial_gives_the_same_bytes(swept: Path, tmp_path: Path) -> None:
    first, second = (report(swept, tmp_path / name).read_bytes() for name in ("a.tar.gz", "b.tar.gz"))
    assert first == second


def test_the_preview_names_files_and_what_was_hidden_and_writes_nothing(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bugreport", trial(swept, "broken"), "--logs", str(swept), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for text in ("server.log.gz", "issue.md", "secrets", "user names", "host names", "Nothing is sent anywhere"):
        assert text in shown
    assert not list(tmp_path.iterdir())


def test_nobody_to_ask_means_nothing_is_written(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["bugreport", trial(swept, "broken"), "--logs", str(swept)]) == 2
    assert "--yes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_trial_that_passed_has_nothing_to_report(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bugreport", trial(swept, "fine"), "--logs", str(swept), "--yes"]) == 2
    assert "nothing to report" in capsys.readouterr().err


def test_an_archive_is_not_overwritten_unasked(swept: Path, tmp_path: Path) -> None:
    out = report(swept, tmp_path / "r.zip")
    again = ["bugreport", trial(swept, "broken"), "--logs", str(swept), "--yes", "--out", str(out)]
    assert main(again) == 2
    assert main([*again, "--force"]) == 0


def test_a_word_named_by_the_person_is_hidden(swept: Path, tmp_path: Path) -> None:
    assert b"grouped_sm120" in every_byte(report(swept, tmp_path / "a.zip"))
    assert b"grouped_sm120" not in every_byte(report(swept, tmp_path / "b.zip", "--hide", "gemm_grouped_sm120"))


@pytest.mark.parametrize("name", ["broken", "dies"])
def test_the_report_reproduces_in_an_empty_folder_with_one_command(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = report(swept, tmp_path / "r.tar.gz", name=name)
    empty = tmp_path / "empty"
    empty.mkdir()
    with tarfile.open(out) as packed:
        packed.extractall(empty, filter="data")
    (folder,) = empty.iterdir()
    capsys.readouterr()
    assert main(["reproduce", str(folder), "--trust", "--json", "--logs", str(empty / "logs")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["result"] == "reproduced"
    assert found["seen"]["cause"] == found["expected"]["cause"]


def changed(swept: Path, tmp_path: Path, *flags: str) -> Path:
    """Somebody's report whose server now does something else."""
    whole = dict(archive.read(report(swept, tmp_path / "r.tar.gz")).files)
    there = json.loads(whole["reproducer/cell.json"])
    at = there["command"].index("--hang")
    kept = [
        w for n, w in enumerate(there["command"][:at]) if w != "--log-line" and there["command"][n - 1] != "--log-line"
    ]
    there["command"] = [*kept, *flags]
    whole["reproducer/cell.json"] = json.dumps(there).encode()
    manifest = json.loads(whole["manifest.json"])
    import hashlib

    for entry in manifest["files"]:
        entry["sha256"] = hashlib.sha256(whole[entry["path"]]).hexdigest()
    whole["manifest.json"] = json.dumps(manifest).encode()
    archive.write(tmp_path / "changed.zip", "folder", whole)
    return tmp_path / "changed.zip"


def test_a_cell_that_passes_here_is_not_reproduced(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scripted server has no numerics, and adds no numbers: it is asked what any model is asked.
    monkeypatch.setattr("sweeper.canary.golden.find", lambda folder: None)
    monkeypatch.setattr("sweeper.tools.prompts_for", lambda model: prompts_for(""))
    out = changed(swept, tmp_path)
    assert main(["reproduce", str(out), "--trust"]) == 1
    assert "not reproduced: the cell passed here" in capsys.readouterr().out


def test_another_failure_is_told_as_different_with_both_causes(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = changed(swept, tmp_path, "--hang", "--exit-after", "0.2", "--exit-code", "9")
    capsys.readouterr()
    assert main(["reproduce", str(out), "--trust", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["result"] == "different"
    assert "cause: cutlass-tma-ws-grouped-gemm-init there, unknown-exit here" in found["differs"]


def test_a_program_of_a_strangers_runs_only_when_trusted(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", str(report(swept, tmp_path / "r.zip"))]) == 2
    told = capsys.readouterr().err
    assert "starts a program of its own" in told
    assert "--trust" in told


def test_an_interpreter_that_is_not_there_is_the_environments_fault(swept: Path, tmp_path: Path) -> None:
    out = report(swept, tmp_path / "r.zip")
    assert main(["reproduce", str(out), "--trust", "--python", "/nowhere/bin/python"]) == 3


def test_a_bad_archive_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.zip").write_bytes(b"no")
    assert main(["reproduce", str(tmp_path / "x.zip")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_script_runs_without_sweeper_where_the_canary_is_there(swept: Path, tmp_path: Path) -> None:
    out = report(swept, tmp_path / "r.tar.gz")
    with tarfile.open(out) as packed:
        packed.extractall(tmp_path / "x", filter="data")
    (folder,) = (tmp_path / "x").iterdir()
    (folder / "reproducer/work/canary").mkdir(parents=True)
    (folder / "reproducer/work/canary/config.json").write_text("{}")
    env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    done = subprocess.run(
        [str(folder / "reproducer/reproduce.sh")], capture_output=True, text=True, timeout=60, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced: cutlass-tma-ws-grouped-gemm-init" in done.stdout
