"""Code that a process runs although neither image nor environment holds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.audit import injected
from sweeper.audit.kinds import Level
from sweeper.audit.running import process_findings
from sweeper.audit.show import as_json, as_text
from sweeper.audit.whole import run_audit
from sweeper.cli.main import main


def test_variables_that_load_other_code_are_found() -> None:
    found = injected.of_environment({"LD_PRELOAD": "/a.so", "PYTHONPATH": "/x", "HOME": "/root", "LD_AUDIT": ""})
    assert [(finding.what, finding.level) for finding in found] == [
        ("LD_PRELOAD", Level.KERNEL),
        ("PYTHONPATH", Level.PYTHON),
    ]


def test_the_library_path_of_cuda_images_is_no_finding() -> None:
    assert injected.of_environment({"LD_LIBRARY_PATH": "/usr/local/nvidia/lib:/usr/local/cuda/lib64"}) == []
    assert injected.of_environment({"LD_LIBRARY_PATH": "/opt/fast"}) != []


@pytest.mark.parametrize(
    ("path", "text", "what"),
    [
        ("x/sitecustomize.py", "import fast", "sitecustomize"),
        ("x/fast.pth", "import fast; fast.patch()\n", ".pth with code"),
        ("x/fast.pth", "/opt/other\n", ".pth"),
        ("f-1.dist-info/entry_points.txt", "[vllm.general_plugins]\nfast = f:go\n", "engine plugin"),
        ("etc/ld.so.preload", "/opt/fast.so\n", "ld.so.preload"),
        ("x/customize.py", "", None),
        ("f-1.dist-info/entry_points.txt", "[console_scripts]\nf = f:go\n", None),
    ],
)
def test_files_that_run_by_being_there_are_found(path: str, text: str, what: str | None) -> None:
    finding = injected.of_change(path, text)
    assert (finding.what if finding else None) == what


def test_a_mount_over_packages_is_found_and_models_and_drivers_are_not() -> None:
    found = injected.of_mounts(
        [
            {"Source": "/home/x/vllm", "Destination": "/usr/lib/python3/dist-packages/vllm"},
            {"Source": "/models", "Destination": "/models"},
            {"Source": "/root/.cache/huggingface", "Destination": "/root/.cache/huggingface"},
            {"Source": "/usr/lib/libcuda.so.1", "Destination": "/usr/lib/x86_64-linux-gnu/libcuda.so.1"},
        ]
    )
    assert [finding.where for finding in found] == ["/home/x/vllm -> /usr/lib/python3/dist-packages/vllm"]


def test_libraries_in_memory_are_told_by_where_they_came_from() -> None:
    maps = [
        "7f0-7f1 r-xp 00000000 08:01 1 /usr/lib/x86_64-linux-gnu/libc.so.6",
        "7f0-7f1 r-xp 00000000 08:01 2 /opt/env/lib/python3.12/site-packages/e/_C.abi3.so",
        "7f0-7f1 r-xp 00000000 08:01 3 /opt/env/lib/python3.12/site-packages/e/_moe_C.abi3.so (deleted)",
        "7f0-7f1 r-xp 00000000 08:01 4 /srv/hook.so",
        "7f0-7f1 r-xp 00000000 08:01 5 /srv/other.so",
        "7f0-7f1 rw-p 00000000 00:00 0 [heap]",
    ]
    found = injected.of_maps(maps, {"LD_PRELOAD": "/srv/hook.so"}, ["/opt/env"])
    assert [(finding.what, Path(finding.where).name) for finding in found] == [
        ("replaced library", "_moe_C.abi3.so"),
        ("preloaded library", "hook.so"),
        ("library from elsewhere", "other.so"),
    ]


def test_a_folder_on_the_python_path_that_hides_a_package_is_found() -> None:
    found = injected.shadows("/x", ["vllm", "tool.py", "torch.py"], ["vllm", "torch", "six.py"])
    assert [finding.where for finding in found] == ["/x/torch.py", "/x/vllm"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_native_process_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text("")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdin=-1, stdout=-1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        found = {finding.what for finding in process_findings(child.pid)}
        code_ = main(["audit", f"process:{child.pid}"])
        child.stdin.close()
    assert code_ == 0
    assert "injected  PYTHONPATH" in capsys.readouterr().out
    assert "PYTHONPATH" in found


def test_a_process_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "process:999999999"]) == 2
    assert "no process" in capsys.readouterr().err
    assert main(["audit", "process:x"]) == 2


def test_an_added_start_file_is_reported_with_the_audit(wheel: object) -> None:
    base = {"e/a.py": "A = 1\n"}
    hook = {"fast.pth": "import fast\n", "sitecustomize.py": "import fast\n"}
    a, b = wheel("a", base), wheel("b", {**base, **hook})  # type: ignore[operator]
    result, findings = run_audit(str(a), str(b))
    assert {finding.what for finding in findings} == {".pth with code", "sitecustomize"}
    assert as_json(result, findings)["verdict"] == "python"
    assert "injected  sitecustomize" in as_text(result, findings)
