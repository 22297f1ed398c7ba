"""CPU and page-cache facts, from a made-up /proc and /sys and from a real file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sweeper.core.machinestate import PageCache
from sweeper.probes.machine.cpu import cached_bytes, cpu_state, page_cache


def machine(root: Path, *, governor: str = "performance", cores: int = 4) -> Path:
    for n in range(cores):
        folder = root / f"sys/devices/system/cpu/cpu{n}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
        (folder / "scaling_cur_freq").write_text(f"{2_000_000 + n * 100_000}\n")
    (root / "proc").mkdir()
    (root / "proc/stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    (root / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable:  600 kB\nCached:  200 kB\n")
    return root


def later(root: Path, stat: str) -> threading.Timer:
    """Another /proc/stat, while the cores are being watched."""
    timer = threading.Timer(0.02, lambda: (root / "proc/stat").write_text(stat))
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("stat", "busy", "crowded"),
    [("cpu  110 0 100 780 110 0 0 0", 0.4, False), ("cpu  130 0 120 740 110 0 0 0", 2.0, True)],
    ids=["quiet", "half of the cores"],
)
def test_other_work_is_counted_in_cores(tmp_path: Path, stat: str, busy: float, crowded: bool) -> None:
    timer = later(machine(tmp_path), stat)
    seen = cpu_state(tmp_path, look_s=0.1)
    timer.join()
    assert (seen.governors, seen.mhz, seen.cores) == (("performance",), (2000.0, 2300.0), 4)
    assert (seen.busy_cores, seen.crowded) == (pytest.approx(busy), crowded)


def test_this_machine_says_something() -> None:
    seen = cpu_state(look_s=0.05)
    assert seen.cores
    assert seen.busy_cores is None or 0 <= seen.busy_cores <= seen.cores


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    seen = cpu_state(tmp_path, look_s=0.0)
    assert (seen.governors, seen.mhz, seen.cores, seen.busy_cores, seen.crowded) == ((), None, None, None, False)
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
