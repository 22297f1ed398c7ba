"""Audit pairs of real wheels: seconds, peak memory, and GPU architectures against NVIDIA's cuobjdump.

    python benchmarks/audit_releases.py --cuobjdump PATH A.whl B.whl [C.whl D.whl ...]

cuobjdump is in the PyPI package nvidia-cuda-cuobjdump. Each audit runs in a process of its own, so peak memory is the
audit's. cuobjdump needs a plain file: each binary is unpacked, listed (-lelf, -lptx), removed. Exit 1 on a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

LISTED = re.compile(r"\.(sm_\d+[af]?)\.(cubin|ptx)\s*$", re.M)


def audited(a: Path, b: Path) -> tuple[dict[str, object], float, float, float]:
    """(JSON, seconds, seconds of CPU, peak MB of resident memory)."""
    command = [sys.executable, "-c", ENTRY]
    start = time.monotonic()
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([*command, "audit", str(a), str(b), "--json"], stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        if status:
            raise SystemExit(f"audit of {a.name} and {b.name} failed")
        out.seek(0)
        return json.load(out), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


ENTRY = "import sys; from sweeper.cli.main import main; raise SystemExit(main(sys.argv[1:]))"


REFUSED = "cuobjdump stopped"


def independent(wheel: Path, cuobjdump: Path) -> dict[str, set[str]]:
    """Architectures by path as cuobjdump lists them, for every ELF file of the wheel; REFUSED where it ended early."""
    found: dict[str, set[str]] = {}
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for info in archive.infolist():
            with archive.open(info) as stream:
                if stream.read(4) != b"\x7fELF":
                    continue
            plain = Path(folder) / "binary.so"
            with archive.open(info) as stream, plain.open("wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
            archs = set()
            for option in ("-lelf", "-lptx"):
                done = subprocess.run([cuobjdump, option, plain], capture_output=True, text=True, check=False)
                if "fatal" in done.stdout + done.stderr:
                    archs.add(REFUSED)
                for arch, kind in LISTED.findall(done.stdout):
                    archs.add(arch if kind == "cubin" else arch.replace("sm_", "compute_"))
            if archs:
                found[info.filename] = archs
            plain.unlink()
    return found


def compare(side: str, ours: dict[str, list[str]], theirs: dict[str, set[str]]) -> int:
    """Prints the differences, returns how many. A binary that cuobjdump did not finish is no difference."""
    wrong = refused = 0
    for path in sorted(ours.keys() | theirs.keys()):
        # cuobjdump prints the `a` of sm_90a and leaves out the `f` of sm_100f.
        mine = {arch.rstrip("f") for arch in ours.get(path, ())}
        listed = theirs.get(path, set())
        if REFUSED in listed and listed - {REFUSED} <= mine:
            refused += 1
        elif mine != listed:
            wrong += 1
            print(f"  {side} {path}: audit {sorted(mine)}, cuobjdump {sorted(listed)}")
    agree = len(theirs) - wrong - refused
    print(
        f"  {side}: {len(theirs)} binaries, {agree} as cuobjdump, {wrong} not, {refused} it did not finish", flush=True
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--cuobjdump", type=Path, help="check architectures with it")
    args = parser.parse_args()
    if len(args.wheels) % 2:
        parser.error("wheels come in pairs")
    wrong = 0
    for a, b in zip(args.wheels[::2], args.wheels[1::2], strict=True):
        result, seconds, busy, peak = audited(a, b)
        size = (a.stat().st_size + b.stat().st_size) / 1e6
        print(f"{a.name} against {b.name}: {result['verdict']}, {size:.0f} MB", flush=True)
        print(f"  {seconds:.1f} s, of which {busy:.1f} s on the CPU, {peak:.0f} MB peak", flush=True)
        if args.cuobjdump:
            removed = {f["path"] for f in result["files"] if f["change"] == "removed"}  # type: ignore[attr-defined]
            new = {path: archs for path, archs in result["archs"].items() if path not in removed}  # type: ignore[attr-defined]
            wrong += compare("A", result["archs_a"], independent(a, args.cuobjdump))  # type: ignore[arg-type]
            wrong += compare("B", new, independent(b, args.cuobjdump))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
