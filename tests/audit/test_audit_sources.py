"""What can be compared, and what is said of a thing that cannot be read."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from sweeper.audit.kinds import Level
from sweeper.audit.trees import open_tree, text_of
from sweeper.audit.whole import run_audit
from sweeper.cli.main import main
from sweeper.core.errors import BadFile, UsageError


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def saved_image(path: Path, layers: list[dict[str, bytes]], env: list[str]) -> Path:
    """As `docker save` writes it."""
    config = json.dumps({"config": {"Env": env, "Cmd": ["serve"]}}).encode()
    files = {f"blobs/{i}": tar_of(layer) for i, layer in enumerate(layers)}
    manifest = [{"Config": "blobs/config", "Layers": list(files)}]
    path.write_bytes(tar_of({**files, "blobs/config": config, "manifest.json": json.dumps(manifest).encode()}))
    return path


def test_a_torn_wheel_is_named_in_one_line(wheel: object, capsys: pytest.CaptureFixture[str]) -> None:
    good = wheel("good", {"e/a.py": "A = 1\n" * 500})  # type: ignore[operator]
    torn = good.with_name("torn.whl")
    torn.write_bytes(good.read_bytes()[:-40])
    assert main(["audit", str(good), str(torn)]) == 2
    error = capsys.readouterr().err
    assert "torn.whl: no readable zip: cut short" in error
    assert "Traceback" not in error


def test_a_damaged_member_is_named(wheel: object) -> None:
    good = wheel("good", {"e/a.py": os.urandom(3000).hex()})  # type: ignore[operator]
    other = wheel("other", {"e/a.py": os.urandom(3000).hex()})  # type: ignore[operator]
    data = bytearray(other.read_bytes())
    data[200:260] = bytes(60)
    other.write_bytes(data)
    with pytest.raises(BadFile, match=r"e/a\.py is damaged"):
        run_audit(str(good), str(other))


def test_what_does_not_exist_or_is_no_archive_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        run_audit(str(tmp_path / "no"), str(tmp_path))
    plain = tmp_path / "plain.bin"
    plain.write_bytes(b"plain")
    with pytest.raises(BadFile, match="no folder, wheel, zip or tar"):
        run_audit(str(plain), str(plain))


def test_one_thing_alone_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two things"):
        run_audit(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path, wheel: object) -> None:
    with pytest.raises(UsageError, match="holds no file"):
        run_audit(str(wheel("a", {"e/a.py": "A = 1\n"})), str(tmp_path / "."), only=["zzz"])  # type: ignore[operator]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(folder: object) -> None:
    a, b = folder("a", {"x.py": "A = 1\n"}), folder("b", {"x.py": "A = 2\n"})  # type: ignore[operator]
    (b / "x.py").chmod(0)
    with pytest.raises(BadFile, match="cannot be read"):
        run_audit(str(a), str(b))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_source_archive_is_compared_below_its_folder(tmp_path: Path, mode: str) -> None:
    a, b = tmp_path / "a.tar", tmp_path / "b.tar"
    a.write_bytes(tar_of({"eng-1.0/csrc/k.cu": b"__global__ void k() {}", "eng-1.0/a.py": b"A = 1\n"}, mode))
    b.write_bytes(tar_of({"fork-1.0/csrc/k.cu": b"__global__ void k() {int x;}", "fork-1.0/a.py": b"A = 1\n"}, mode))
    result, _ = run_audit(str(a), str(b))
    assert [file.path for file in result.files] == ["csrc/k.cu"]
    assert result.verdict is Level.KERNEL


def test_layers_of_a_saved_image_are_laid_over_each_other(tmp_path: Path) -> None:
    base = {
        "opt/e/a.py": b"A = 1\n",
        "opt/e/gone.py": b"B = 1\n",
        "opt/old/x.py": b"X = 1\n",
        "opt/old/y.py": b"Y = 1\n",
    }
    upper = {
        "opt/e/a.py": b"A = 2\n",
        "opt/e/.wh.gone.py": b"",
        "opt/old/.wh..wh..opq": b"",
        "opt/old/z.py": b"Z = 1\n",
    }
    with open_tree(str(saved_image(tmp_path / "i.tar", [base, upper], ["A=1"]))) as tree:
        assert {path for path in tree.entries if path.startswith("opt")} == {"opt/e/a.py", "opt/old/z.py"}
        assert text_of(tree.entries["opt/e/a.py"], 99) == b"A = 2\n"
        assert tree.environ == {"A": "1"}


def test_an_image_that_preloads_a_library_can_change_kernels(tmp_path: Path) -> None:
    layer = {"opt/e/a.py": b"A = 1\n"}
    a = saved_image(tmp_path / "a.tar", [layer], ["PATH=/bin"])
    b = saved_image(tmp_path / "b.tar", [layer], ["PATH=/bin", "LD_PRELOAD=/opt/fast.so"])
    assert main(["audit", str(a), str(b), "--json"]) == 0
    result, findings = run_audit(str(a), str(b))
    assert [finding.what for finding in findings] == ["LD_PRELOAD"]
    assert [file.path for file in result.files] == ["(image)/environment"]


def test_json_has_the_documented_keys(wheel: object, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = wheel("a", {"e/a.json": "{}"}), wheel("b", {"e/a.json": '{"x": 1}'})  # type: ignore[operator]
    assert main(["audit", str(a), str(b), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["schema"], out["verdict"], out["archs"]) == (1, "config", {})
    assert out["files"] == [{"path": "e/a.json", "kind": "config", "change": "changed", "level": "config"}]


def test_text_leads_with_the_verdict(wheel: object, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = wheel("a", {"e/moe.py": "A = 1\n"}), wheel("b", {"e/moe.py": "A = 2\n"})  # type: ignore[operator]
    assert main(["audit", str(a), str(b), "--all"]) == 0
    out = capsys.readouterr().out
    assert "verdict  python: no kernel differs" in out
    assert "~ e/moe.py" in out
    assert "+A = 2" in out


@pytest.mark.docker
def test_a_container_with_a_changed_file_and_a_mount_is_caught(tmp_path: Path) -> None:
    docker = pytest.importorskip("docker")
    client = docker.from_env()
    name = os.environ.get("SWEEPER_AUDIT_IMAGE", "sweeper-debian:local")
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        pytest.skip(f"no image {name}")
    (tmp_path / "shadow.py").write_text("A = 1\n")
    script = "mkdir -p /opt/e && echo 'A = 2' > /opt/e/moe.py && sleep 60"
    volumes = {str(tmp_path): {"bind": "/usr/lib/python3/dist-packages/fast", "mode": "ro"}}
    labels = {"sweeper.run": "test", "sweeper.trial": "t", "sweeper.owner": "test"}
    box = client.containers.run(
        name, ["sh", "-c", script], detach=True, volumes=volumes, labels=labels, environment={"PYTHONPATH": "/opt"}
    )
    try:
        for _ in range(50):
            if any(change["Path"] == "/opt/e/moe.py" for change in box.diff() or []):
                break
        result, findings = run_audit(f"container:{box.name}")
    finally:
        box.remove(force=True)
    assert result.verdict is Level.PYTHON
    paths = {file.path for file in result.files}
    assert {"opt/e/moe.py", "usr/lib/python3/dist-packages/fast/shadow.py"} <= paths
    assert {"bind mount over code", "PYTHONPATH"} <= {finding.what for finding in findings}


def test_a_wheel_is_compared_with_its_own_files_inside_an_image(tmp_path: Path, wheel: object) -> None:
    place = "usr/local/lib/python3.12/dist-packages/"
    layer = {place + "e/a.py": b"A = 1\n", place + "e/moe.py": b"B = 2\n", "etc/other.conf": b"x"}
    image = saved_image(tmp_path / "i.tar", [layer], [])
    a = wheel("a", {"e/a.py": "A = 1\n", "e/moe.py": "B = 1\n", "e-1.dist-info/METADATA": "Name: e\n"})  # type: ignore[operator]
    result, _ = run_audit(str(a), str(image))
    assert [(file.path, file.before) for file in result.files] == [("e/moe.py", None)]
    assert result.verdict is Level.PYTHON
