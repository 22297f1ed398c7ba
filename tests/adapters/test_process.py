"""Real processes: small Python programs in the role of servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeper.core.errors import EnvironmentNotReady, LaunchFailed
from sweeper.core.values import LaunchPlan
from sweeper.launchers import processes, scratch
from sweeper.launchers.labels import owner_alive, this_owner
from sweeper.launchers.process import ProcessHandle, ProcessLauncher

RUN = f"test-{os.getpid()}"


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    left = [entry for entry in processes.marked() if entry.mark.run_id == RUN]
    processes.send(left, signal.SIGKILL)
    assert left == []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "trials" / "one" / "server.log"


def start(log: Path, program: str, *, env: dict[str, str] | None = None, **kwargs: object) -> ProcessHandle:
    plan = LaunchPlan(
        argv=(sys.executable, "-c", program, "--port", "{port}", "--host={host}", '{"json": 1}'),
        env=env or {},
        served_model="m",
    )
    launcher = ProcessLauncher(**kwargs)  # type: ignore[arg-type]
    return launcher.start(plan, log_path=log, run_id=RUN, trial="one", gpus=())


SOCKET = (
    "import os, socket, time\n"
    "socket.socket(socket.AF_UNIX).bind(os.environ['VLLM_RPC_BASE_PATH'] + '/' + 'u' * 36)\n"
    "print('bound', flush=True); time.sleep(60)"
)


def rooms() -> set[Path]:
    return {path for path in Path(tempfile.gettempdir()).glob(f"sweeper-{this_owner()}-*") if path.is_dir()}


def test_sockets_that_an_engine_leaves_go_with_the_server(log: Path) -> None:
    with start(log, SOCKET) as server:
        until(lambda: "bound" in log.read_text())
        (room,) = rooms()
        assert [path.is_socket() for path in room.iterdir()] == [True]
        assert str(room) not in server.record.by_hand, "the line is pasted when the folder is gone"
    assert not rooms()
    with start(
        log, "import os; print(os.environ['VLLM_RPC_BASE_PATH'])", env={"VLLM_RPC_BASE_PATH": "/mine"}
    ) as server:
        until(lambda: server.poll())
    assert log.read_text().endswith("/mine\n"), "the matrix has the last word"


def test_the_folders_of_dead_sweeps_are_removed_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    owner = this_owner()
    dead, living, foreign = f"sweeper-{owner}9-x1", f"sweeper-{owner}-x1", "sweeper-notes"
    for name in (dead, living, foreign):
        (tmp_path / name).mkdir()
    (tmp_path / f"sweeper-{owner}9-x2").symlink_to(tmp_path / foreign)
    scratch.remove_of_dead_sweeps()
    assert not (tmp_path / dead).exists()
    assert (tmp_path / living).is_dir()
    assert (tmp_path / foreign).is_dir()


def test_a_folder_too_deep_for_sockets_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert scratch.make() is None
    assert list(deep.iterdir()) == []


def family(trial: str = "one") -> list[processes.Marked]:
    return [e for e in processes.marked() if e.mark.run_id == RUN and e.mark.trial == trial]


def test_the_port_and_host_are_filled_in_and_other_braces_kept(log: Path) -> None:
    with start(
        log, "import sys, os; print(sys.argv[1:], os.environ['BASE'])", env={"BASE": "http://{host}:{port}"}
    ) as s:
        until(s.poll)
    said = log.read_text()
    assert str(s.record.port) in said
    assert f"http://127.0.0.1:{s.record.port}" in said
    assert '{"json": 1}' in said
    assert s.record.base_url == f"http://127.0.0.1:{s.record.port}"


def test_the_log_holds_both_streams_from_the_first_byte(log: Path) -> None:
    program = "import os; os.write(1, b'first\\xff\\r'); os.write(2, b'second')"
    with start(log, program) as server:
        until(server.poll)
    assert log.read_bytes() == b"first\xff\rsecond"


def test_a_line_is_in_the_log_while_the_server_runs(log: Path) -> None:
    with start(log, "import time; print('up'); time.sleep(60)") as server:
        until(lambda: log.read_text() == "up\n")
        assert server.poll() is None


def test_an_exit_is_noticed_with_its_code(log: Path) -> None:
    with start(log, "raise SystemExit(7)") as server:
        until(server.poll)
        ended = server.poll()
    assert ended is not None
    assert (ended.code, ended.stopped_by_us, ended.oom_killed) == (7, False, False)


def test_a_death_by_signal_follows_the_shell(log: Path) -> None:
    with start(log, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") as server:
        until(server.poll)
        ended = server.poll()
    assert ended is not None
    assert ended.code == 139


def test_stop_asks_first_and_is_idempotent(log: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye') or 3))\nprint('up')\ntime.sleep(60)"
    )
    server = start(log, program)
    until(lambda: "up" in log.read_text())
    ended = server.stop(5.0)
    assert (ended.code, ended.how, ended.stopped_by_us) == (3, "SIGTERM", True)
    assert server.stop(5.0) == ended
    assert log.read_text() == "up\nbye\n"


def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(log: Path) -> None:
    program = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\ntime.sleep(60)"
    server = start(log, program)
    until(lambda: "up" in log.read_text())
    ended = server.stop(0.1)
    assert (ended.code, ended.how) == (137, "SIGKILL")


WITH_CHILDREN = (
    "import os, signal, subprocess, sys, time\n"
    "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
    "subprocess.Popen(sleep)\n"
    "subprocess.Popen(sleep, start_new_session=True)\n"
    "subprocess.Popen(sleep, env={})\n"
    "print('up')\n"
)


def test_children_in_other_sessions_and_with_emptied_environments_end_too(log: Path) -> None:
    server = start(log, WITH_CHILDREN + "time.sleep(60)")
    until(lambda: "up" in log.read_text() and len(family()) == 4)
    server.stop(2.0)
    assert family() == []


def test_the_whole_family_belongs_to_the_server(log: Path) -> None:
    program = (
        "import subprocess, time; subprocess.Popen(['sleep', '9'], env={}); print('up', flush=True); time.sleep(9)"
    )
    with start(log, program) as server:
        until(lambda: b"up" in log.read_bytes())
        assert server.record.pid in server.pids()
        assert len(server.pids()) == 2
    assert server.pids() == ()


def test_children_that_outlive_their_parent_are_ended_by_stop(log: Path) -> None:
    server = start(log, WITH_CHILDREN + "os._exit(1)")
    until(server.poll)
    ended = server.stop(2.0)
    assert (ended.code, ended.how) == (1, "exited by itself")
    assert family() == []


def test_leaving_the_block_ends_the_server_also_after_an_error(log: Path) -> None:
    with pytest.raises(RuntimeError), start(log, "import time; time.sleep(60)") as server:
        raise RuntimeError
    assert server.poll() is not None


def test_nothing_of_another_trial_is_touched(log: Path, tmp_path: Path) -> None:
    plan = LaunchPlan(argv=(sys.executable, "-c", "import time; time.sleep(60)"), env={}, served_model="m")
    other = ProcessLauncher().start(plan, log_path=tmp_path / "b.log", run_id=RUN, trial="two", gpus=())
    with other:
        with start(log, "import time; time.sleep(60)"):
            pass
        assert other.poll() is None


def test_a_process_left_by_a_killed_controller_is_found_with_a_dead_owner(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from sweeper.core.values import LaunchPlan; from sweeper.launchers.process import ProcessLauncher\n"
        "plan = LaunchPlan(argv=(sys.executable, '-c', 'import time; time.sleep(60)'), env={}, served_model='m')\n"
        f"log = Path({str(tmp_path / 'x.log')!r})\n"
        f"ProcessLauncher().start(plan, log_path=log, run_id={RUN!r}, trial='left', gpus=())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    left = family("left")
    assert len(left) == 1
    assert not owner_alive(left[0].mark.owner)
    _, still = processes.end(lambda: family("left"), term_s=2.0)
    assert still == []


def test_a_living_owner_is_known_as_living() -> None:
    assert owner_alive(this_owner())
    assert not owner_alive("")
    assert not owner_alive(this_owner() + "1")


def test_the_server_sees_no_tuning_variables_of_the_users_shell(log: Path) -> None:
    shell = {"PATH": os.environ["PATH"], "VLLM_USE_V1": "0", "HF_TOKEN": "hf_abc", "LC_ALL": "C"}
    program = "import os; print(sorted(os.environ))"
    with start(log, program, environ=shell, env={"VLLM_CPU_KVCACHE_SPACE": "1"}) as server:
        until(server.poll)
    said = log.read_text()
    assert "VLLM_USE_V1" not in said
    assert "VLLM_CPU_KVCACHE_SPACE" in said
    assert "HF_TOKEN" in said
    assert server.record.env["HF_TOKEN"] == "$HF_TOKEN"
    assert "hf_abc" not in str(server.record)


def test_the_line_by_hand_runs_the_same_program(log: Path) -> None:
    with start(log, "print('hi')", env={"A": "b c", "MY_TOKEN": "s3cret"}) as server:
        until(server.poll)
    assert "A='b c'" in server.record.by_hand
    assert "s3cret" not in server.record.by_hand
    line = server.record.by_hand.replace('MY_TOKEN="$MY_TOKEN" ', "")
    assert subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout == "hi\n"


def test_named_gpus_become_visible_devices(log: Path) -> None:
    plan = LaunchPlan(
        argv=(sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"),
        env={},
        served_model="m",
        gpus=2,
    )
    with ProcessLauncher().start(plan, log_path=log, run_id=RUN, trial="one", gpus=("1", "GPU-5")) as server:
        until(server.poll)
    assert log.read_text() == "1,GPU-5\n"


def test_a_missing_program_is_named(log: Path) -> None:
    plan = LaunchPlan(argv=("/nowhere/bin/python", "-V"), env={}, served_model="m")
    with pytest.raises(LaunchFailed, match="cannot execute /nowhere/bin/python") as failed:
        ProcessLauncher().start(plan, log_path=log, run_id=RUN, trial="one", gpus=())
    assert failed.value.cause_id == "executable-missing"


def test_a_missing_working_folder_is_named(log: Path) -> None:
    plan = LaunchPlan(argv=(sys.executable, "-V"), env={}, served_model="m", cwd="/nowhere/at/all")
    with pytest.raises(LaunchFailed, match="working folder /nowhere/at/all"):
        ProcessLauncher().start(plan, log_path=log, run_id=RUN, trial="one", gpus=())


def test_a_taken_port_is_refused_with_its_holder(log: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(LaunchFailed, match=f"port {port} .* pid {os.getpid()}") as failed:
            start(log, "pass", port=port)
    assert failed.value.cause_id == "port-in-use"


def test_a_log_that_cannot_be_written_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("a file where a folder must be")
    with pytest.raises(EnvironmentNotReady, match="cannot write the server log"):
        start(tmp_path / "trials" / "one" / "server.log", "pass")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_does_not_keep_the_exit_from_being_seen() -> None:
    with start(Path("/dev/full"), "print('x' * 100000)") as server:
        until(server.poll)
        ended = server.poll()
    assert ended is not None
    assert ended.code != 0


def test_the_post_mortem_has_the_last_lines(log: Path) -> None:
    with start(log, "print('\\n'.join(map(str, range(100)))); raise SystemExit(2)") as server:
        until(server.poll)
        facts = server.post_mortem()
    assert facts["exit_code"] == 2
    assert facts["last_lines"][-1] == "99"
    assert len(facts["last_lines"]) == 40
