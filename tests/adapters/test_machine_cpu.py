"""CPU and page-cache facts, from a made-up /proc and /sys and from a real file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeper.probes.machine.cpu import PageCache, cached_bytes, cpu_state, page_cache


def machine(root: Path, *, governor: str = "performance", load: str = "0.10 0.2 0.3 1/100 42", cores: int = 4) -> Path:
    for n in range(cores):
        folder = root / f"sys/devices/system/cpu/cpu{n}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
        (folder / "scaling_cur_freq").write_text(f"{2_000_000 + n * 100_000}\n")
    (root / "proc/pressure").mkdir(parents=True)
    (root / "proc/loadavg").write_text(load)
    (root / "proc/pressure/cpu").write_text("some avg10=2.50 avg60=1.00 avg300=0.50 total=1\nfull avg10=0 total=0\n")
    (root / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable:  600 kB\nCached:  200 kB\n")
    return root


def test_a_quiet_machine(tmp_path: Path) -> None:
    seen = cpu_state(machine(tmp_path))
    assert (seen.governors, seen.mhz, seen.load_1m, seen.cores) == (("performance",), (2000.0, 2300.0), 0.1, 4)
    assert seen.pressure_share == pytest.approx(0.025)
    assert seen.notes == ()


def test_a_saving_governor_and_a_busy_machine_are_noted(tmp_path: Path) -> None:
    notes = cpu_state(machine(tmp_path, governor="powersave", load="3.5 1 1 1/1 1")).notes
    assert "powersave" in notes[0]
    assert "load 3.5 on 4 cores" in notes[1]


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    seen = cpu_state(tmp_path)
    assert (seen.governors, seen.mhz, seen.load_1m, seen.cores, seen.pressure_share) == ((), None, None, None, None)
    assert page_cache(root=tmp_path) == PageCache()


def test_memory_for_files(tmp_path: Path) -> None:
    seen = page_cache(root=machine(tmp_path))
    assert (seen.cached_bytes, seen.available_bytes, seen.warm_share) == (200 * 1024, 600 * 1024, None)


def test_a_file_just_written_is_in_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "model-00001.safetensors"
    file.write_bytes(os.urandom(3 * 2**20 + 17))
    assert cached_bytes(file) == 3 * 2**20 + 17
    seen = page_cache(tmp_path)
    assert seen.checkpoint_bytes == 3 * 2**20 + 17
    assert seen.warm_share == 1.0
    assert page_cache(file).warm_share == 1.0


def test_a_file_dropped_from_the_cache_is_seen_as_cold(tmp_path: Path) -> None:
    file = tmp_path / "weights.gguf"
    with file.open("wb") as out:
        out.write(os.urandom(4 * 2**20))
        out.flush()
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    share = page_cache(tmp_path).warm_share
    if share == 1.0:
        pytest.skip("this file system keeps its pages")
    assert share is not None
    assert share < 0.5


def test_an_empty_folder_and_a_missing_file(tmp_path: Path) -> None:
    assert page_cache(tmp_path).checkpoint_bytes is None
    assert cached_bytes(tmp_path / "gone") is None
    (tmp_path / "empty").touch()
    assert cached_bytes(tmp_path / "empty") == 0
