"""Archives: the same bytes for the same report, and distrust of what somebody else made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from sweeper.bugreport import archive
from sweeper.bugreport.archive import BadArchive, pack, read, write


def files(schema: object = 1, **more: bytes) -> dict[str, bytes]:
    listed = [{"path": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in more.items()]
    return {"manifest.json": json.dumps({"schema": schema, "sweeper": "9.9", "files": listed}).encode(), **more}


def tar_with(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for entry, data in entries:
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["r.tar.gz", "r.tgz", "r.zip"])
def test_what_is_written_is_read_back_and_the_bytes_are_the_same_each_time(tmp_path: Path, name: str) -> None:
    whole = files(**{"a.txt": b"one", "sub/b.sh": b"two"})
    write(tmp_path / name, "folder", whole)
    assert read(tmp_path / name).files == whole
    assert (tmp_path / name).read_bytes() == pack(name, "folder", dict(reversed(whole.items())))


@pytest.mark.parametrize("name", ["r.tar.gz", "r.zip"])
def test_there_is_one_folder_inside(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "folder", files(**{"a": b"1"}))
    path = tmp_path / name
    names = zipfile.ZipFile(path).namelist() if name.endswith("zip") else tarfile.open(path).getnames()  # noqa: SIM115
    assert {entry.split("/")[0] for entry in names} == {"folder"}


def test_a_newer_form_says_which_and_how_to_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "new.tar.gz"
    write(path, "folder", files(schema=archive.SCHEMA + 1))
    with pytest.raises(BadArchive, match=r"written by sweeper 9\.9 in form 2 .* reads up to 1") as error:
        read(path)
    assert error.value.hint is not None
    assert "Upgrade" in error.value.hint
    assert error.value.exit_code == 2


@pytest.mark.parametrize("name", ["../evil", "folder/../../evil", "/etc/evil", "folder\\..\\evil", "C:/evil"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    bad = tar_with(tmp_path / "bad.tar.gz", (tarfile.TarInfo(name), b"x"))
    with pytest.raises(BadArchive, match="leads out"):
        read(bad)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as out:
        out.writestr(name, b"x")
    with pytest.raises(BadArchive, match=r"leads out|not a report"):
        read(tmp_path / "bad.zip")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("folder/manifest.json")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(BadArchive, match="link or a device"):
        read(tar_with(tmp_path / "bad.tar.gz", (entry, b"")))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("folder/manifest.json")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as out:
        out.writestr(entry, "/etc/passwd")
    with pytest.raises(BadArchive, match="link or a device"):
        read(tmp_path / "bad.zip")


@pytest.mark.parametrize("name", ["bomb.tar.gz", "bomb.zip"])
def test_a_bomb_stops_at_the_limit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    write(tmp_path / name, "folder", files(**{"zeros": bytes(4 << 20)}))
    with pytest.raises(BadArchive, match="unpacks to more than 1 MiB"):
        read(tmp_path / name)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    many = {str(number): b"" for number in range(archive.MAX_FILES + 1)}
    write(tmp_path / "many.tar.gz", "folder", files(**many))
    with pytest.raises(BadArchive, match="more than 200 files"):
        read(tmp_path / "many.tar.gz")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello", "neither .tar.gz nor .zip"),
        (b"\x1f\x8b broken", r"damaged|cannot be read"),
        (b"PK\x03\x04 broken", "damaged"),
        (gzip.compress(b"not a tar"), "damaged"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadArchive, match=told):
        read(path)


def test_a_file_cut_short_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar.gz"
    write(path, "folder", files(**{"a": bytes(range(256)) * 400}))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadArchive, match="damaged"):
        read(path)


def test_an_edited_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "edited.zip"
    write(path, "folder", {**files(**{"a": b"as written"}), "a": b"edited"})
    with pytest.raises(BadArchive, match="a differs"):
        read(path)


@pytest.mark.parametrize(
    ("manifest", "told"), [(b"{", "not JSON"), (b"{}", "schema: missing"), (b'{"schema": 1}', "files: not a list")]
)
def test_a_wrong_manifest_is_told_with_its_key(tmp_path: Path, manifest: bytes, told: str) -> None:
    path = tmp_path / "r.zip"
    write(path, "folder", {"manifest.json": manifest})
    with pytest.raises(BadArchive, match=told):
        read(path)


def test_a_missing_file_is_told_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="no such file"):
        read(tmp_path / "nowhere.tar.gz")
