"""What goes wrong outside of sweeper ends in one message with what to do, and costs no other cell."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper import tools
from sweeper.cli.main import main
from sweeper.core.errors import RecordUnwritable
from sweeper.core.values import Cell, Hardware
from sweeper.launchers import processes
from sweeper.store import rundir
from tests.servers.argv import scripted

SERVERS = Path(__file__).parents[1] / "servers"
HEALTHY = [*scripted()]
BREAKS = [sys.executable, str(SERVERS / "broken.py"), "--port", "{port}"]
NOBODY = 65534


def matrix(folder: Path, cells: list[dict[str, Any]], **changes: Any) -> Path:
    """Cells of scripted servers; `m` names no folder, so nothing is looked for on the disk."""
    whole: dict[str, Any] = {
        "engine": "command",
        "model": "m",
        "command": HEALTHY,
        "cells": cells,
        "workloads": [{"isl": 16, "osl": 32, "concurrency": 1, "window_s": 0.1, "warmup_s": 0}],
        "policy": {"deadlines": {"ready_s": 20, "stop_s": 2}},
        "hardware": {"count": 0},
    }
    path = folder / "bad.yaml"
    path.write_text(yaml.safe_dump({**whole, **changes}))
    return path


def left_of(folder: Path) -> list[str]:
    """Processes of the runs below a folder that still run."""
    runs = {path.name for path in folder.rglob("*-bad-*")}
    return [f"{entry.pid} {entry.name}" for entry in processes.marked() if entry.mark.run_id in runs]


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert left_of(tmp_path) == []


def swept(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the unranked cells by label, and what was said while it ran."""
    code = main(["run", str(path), "--logs", str(path.parent / "logs"), "--json", *more])
    out, err = capsys.readouterr()
    report = json.loads(out) if out else {"unranked": [], "ranking": []}
    told = {item["label"]: item for item in report["unranked"]}
    told.update({item["label"]: {"outcome": "PASS"} for item in report["ranking"]})
    return code, told, err


def test_a_typo_is_named_with_line_and_nearest_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text("engine: vllm\nmodle: x\nmodel: y\n")
    assert main(["run", str(path), "--logs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}:2: modle: unknown key 'modle'; did you mean 'model'?" in said
    assert "sweeper plan" in said


def test_a_launcher_that_does_not_exist_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", str(matrix(tmp_path, [{"name": "a"}])), "--logs", str(tmp_path / "logs"), "--launcher", "dokcer"])
    assert end.value.code == 2
    assert "'docker', 'process', 'attach'" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_missing_or_cut_checkpoint_and_a_missing_program_cost_only_their_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}).encode()
    (cut / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    cells = [
        {"name": "missing", "model": str(tmp_path / "none")},
        {"name": "cut", "model": str(cut)},
        {"name": "program", "command": [str(tmp_path / "no-program"), "--port", "{port}"]},
        {"name": "healthy"},
    ]
    code, told, _ = swept(matrix(tmp_path, cells), capsys)
    assert code == 1
    assert told["missing"]["cause"] == "model-not-found"
    assert f"the model {tmp_path / 'none'} does not exist" in told["missing"]["means"]
    assert told["cut"]["cause"] == "checkpoint-corrupt"
    assert "download the file again" in told["cut"]["means"]
    assert told["program"]["cause"] == "executable-missing"
    assert told["healthy"]["outcome"] == "PASS"


@pytest.mark.slow
def test_streams_that_break_are_each_named_and_the_rest_still_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.watch.DYING_S", 0.2)
    said = {
        "json": "an event that is not JSON",
        "list": "not an event: [1, 2]",
        "quiet": "the stream ended without a finish reason or [DONE]",
        "html": "the stream ended without a finish reason or [DONE]",
        "chunk": "not HTTP",
        "cut": "closed the connection mid-stream",
    }
    cells: list[dict[str, Any]] = [{"name": kind, "command": [*BREAKS, "--kind", kind]} for kind in said]
    code, told, _ = swept(matrix(tmp_path, [*cells, {"name": "healthy"}]), capsys)
    assert code == 1
    for kind, words in said.items():
        assert (told[kind]["outcome"], told[kind]["cause"]) == ("FAIL", "request-failed"), kind
        assert words in told[kind]["means"], kind
        assert told[kind]["evidence"].endswith("server.log")
    assert told["healthy"]["outcome"] == "PASS"


def test_a_server_whose_port_is_taken_is_named_so_and_the_rest_still_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        taken = [*BREAKS[:2], "--port", port, "--kind", "json"]
        code, told, _ = swept(matrix(tmp_path, [{"name": "taken", "command": taken}, {"name": "healthy"}]), capsys)
    assert code == 1
    assert (told["taken"]["outcome"], told["taken"]["cause"]) == ("FAIL", "port-in-use")
    assert "ddress already in use" in told["taken"]["line"]
    assert told["healthy"]["outcome"] == "PASS"


def test_docker_that_does_not_run_fails_its_cells_and_says_how_to_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'no.sock'}")
    cells = [{"name": "boxed", "image": "demo:1", "launcher": "docker"}, {"name": "native"}]
    code, told, _ = swept(matrix(tmp_path, cells), capsys)
    assert code == 1
    assert told["boxed"]["cause"] == "docker-not-running"
    assert str(tmp_path / "no.sock") in told["boxed"]["means"]
    assert told["native"]["outcome"] == "PASS"
    main(["report", "last", "--logs", str(tmp_path / "logs")])
    assert "systemctl start docker" in capsys.readouterr().out


@pytest.mark.docker
def test_an_image_that_does_not_exist_fails_its_cell_and_says_what_to_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [{"name": "boxed", "image": "no-such-registry.invalid/none:1", "launcher": "docker"}, {"name": "native"}]
    code, told, said = swept(matrix(tmp_path, cells), capsys)
    assert code == 1
    assert told["boxed"]["cause"] == "image-not-found"
    assert "pulling no-such-registry.invalid/none:1" in said
    assert told["native"]["outcome"] == "PASS"


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user for whom modes count: root may write everywhere."""
    argv = [sys.executable, "-B", "-P", "-m", "sweeper", *arguments]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("needs setpriv, or a user that is not root")
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        argv = [setpriv, *user, *argv]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, check=False)
    if "No module named" in done.stderr or "can't open file" in done.stderr:
        pytest.skip("another user may not read this checkout")
    return done


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_a_logs_folder_that_may_not_be_written_is_one_message(open_folder: Path) -> None:
    logs = open_folder / "logs"
    logs.mkdir(mode=0o555)
    done = as_nobody("run", str(matrix(open_folder, [{"name": "a"}])), "--logs", str(logs))
    assert done.returncode == 3, done.stderr
    assert f"error: cannot write {logs}/" in done.stderr
    assert "Permission denied\n  Choose another folder with --logs DIR" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "code"), [("report", 3), ("diagnose", 2)])
def test_a_folder_that_may_not_be_entered_is_one_message(open_folder: Path, command: str, code: int) -> None:
    closed = open_folder / "closed"
    closed.mkdir()
    (closed / "server.log").write_text("x")
    closed.chmod(0)
    argv = ("report", "last", "--logs", str(closed / "logs")) if command == "report" else (command, f"{closed}/x.log")
    done = as_nobody(*argv)
    closed.chmod(0o755)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert "Permission denied" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left", [0, 12, 16, 20, 28, 32, 36])
def test_a_full_disk_ends_the_sweep_with_one_message_and_no_server(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    """`left` KiB: it strikes when the folder, the lock, the record or a trial's evidence is written."""
    path = matrix(tmp_path, [{"name": "a"}])
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(free - 1024 * left))
    assert main(["run", str(path), "--logs", str(small_disk)]) == 3
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "ree space" in said
    assert left_of(tmp_path) == []


def test_evidence_that_cannot_be_kept_ends_the_sweep_though_the_record_still_could(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: object) -> None:
        if path.name != "plan.json":
            return kept(path, data)
        raise RecordUnwritable(f"cannot write {path}: No space left on device", hint="free space")

    kept = rundir.write_json
    monkeypatch.setattr(rundir, "write_json", full)
    path = matrix(tmp_path, [{"name": "a"}, {"name": "b", "env": {"B": "1"}}])
    assert main(["run", str(path), "--logs", str(tmp_path / "logs")]) == 3
    assert "plan.json: No space left on device" in capsys.readouterr().err
    assert main(["status", "--logs", str(tmp_path / "logs")]) == 0
    shown = capsys.readouterr().out
    assert "cut off; 1 INCONCLUSIVE, 1 waiting" in shown


def test_a_second_sweep_on_a_run_is_refused_with_the_holder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sweeper.store.eventlog import Lock

    path = matrix(tmp_path, [{"name": "a"}])
    assert swept(path, capsys)[0] == 0
    run = next((tmp_path / "logs").iterdir())
    lock = Lock(run)
    assert main(["run", str(path), "--resume", "last", "--logs", str(tmp_path / "logs")]) == 4
    lock.release()
    said = capsys.readouterr().err
    assert f"is in use by pid {os.getpid()}" in said
    assert "sweeper status" in said


def test_the_rest_of_a_run_is_what_it_was_begun_as(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = matrix(tmp_path, [{"name": "a"}, {"name": "b", "env": {"B": "1"}}])
    assert swept(path, capsys, "--only", "a", "--launcher", "process")[0] == 0
    logs = ("--logs", str(tmp_path / "logs"))
    assert main(["run", str(path), "--resume", "last", "--launcher", "attach", *logs]) == 2
    assert "was begun with --launcher process" in capsys.readouterr().err
    code, told, _ = swept(path, capsys, "--resume", "last")
    assert (code, list(told)) == (0, ["a"])


def test_the_rest_of_a_run_has_as_many_launches_as_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = matrix(tmp_path, [{"name": "a"}])
    assert swept(path, capsys, "--launches", "2")[0] == 0
    log = next((tmp_path / "logs").iterdir()) / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    whole = _finished(lines)
    first = next(number for number, line in enumerate(lines) if _finished([line]))
    log.write_text("".join(lines[: first + 1]))  # a kill between the launches
    assert swept(path, capsys, "--resume", "last")[0] == 0
    assert _finished(log.read_text().splitlines()) == whole > 1


def _finished(lines: Sequence[str]) -> int:
    return sum('"trial_finished"' in line for line in lines)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_DEVICES", ())
    monkeypatch.setattr(tools, "_docker_has_gpus", lambda: False)
    monkeypatch.setattr(tools, "visible_gpus", tuple)


def test_a_sweep_for_gpus_on_a_machine_without_any_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_gpu: None
) -> None:
    path = matrix(tmp_path, [{"name": "a", "image": "x:1"}], engine="vllm", hardware={"count": 4}, command=["x"])
    assert main(["run", str(path), "--logs", str(tmp_path / "logs")]) == 3
    said = capsys.readouterr().err
    assert "no cell can run here: a needs 1 GPU, and this machine has none" in said
    assert "sweeper doctor" in said
    assert not (tmp_path / "logs").exists()


def test_a_cell_for_more_gpus_than_were_given_is_skipped_and_the_rest_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_gpu: None
) -> None:
    wide = {"name": "wide", "command": [*HEALTHY, "--tokens-per-chunk={tp}"], "parallelism": {"tp": 2}}
    path = matrix(tmp_path, [{"name": "one"}, wide], hardware={"count": 2})
    code, told, _ = swept(path, capsys, "--gpus", "0")
    assert (code, told["one"]["outcome"]) == (0, "PASS")
    assert (told["wide"]["outcome"], told["wide"]["cause"]) == ("SKIP", "gpus-missing")
    assert told["wide"]["means"] == "needs 2 GPUs, and this sweep has 1: 0"
    code, told, _ = swept(path, capsys, "--gpus", "0,1", "--resume", "last")
    assert (code, told["wide"]["outcome"]) == (0, "PASS"), "GPUs that were missing then say nothing about the cell"


def test_what_may_run_on_cpus_is_not_refused_for_want_of_gpus(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(engine="sglang", model="m", image="x")
    assert tools.lacking_gpus(cell, Hardware(count=1), ()) == "needs 1 GPU, and this machine has none"
    for hardware in (Hardware(), Hardware(count=0)):
        assert tools.lacking_gpus(cell, hardware, ()) is None
    assert tools.lacking_gpus(replace(cell, url="http://h:1", image=None), Hardware(count=1), ()) is None
    monkeypatch.setattr(tools, "_docker_has_gpus", lambda: True)
    assert tools.lacking_gpus(cell, Hardware(count=1), ()) is None, "the engine has GPUs that we cannot see"


def test_what_ends_a_sweep_before_it_begins_leaves_no_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = ("--logs", str(tmp_path / "logs"))
    path = matrix(tmp_path, [{"name": "a"}])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "bad.yaml").write_text("id: x")
    assert main(["run", str(path), "--signatures", str(tmp_path / "own"), *logs]) == 2
    assert "bad.yaml:1" in capsys.readouterr().err
    named = matrix(tmp_path, [{"name": "a"}], policy={"canary": str(tmp_path / "none")})
    assert main(["run", str(named), *logs]) == 2
    assert "policy.canary: no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists(), "`last` would be a run that never was"
