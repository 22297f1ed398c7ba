"""What makes a process run other code than its image or environment holds. Pure: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from sweeper.audit.kinds import LIBRARY, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`what` is the mechanism, `where` the variable, path or mount, `means` one sentence for a person."""

    what: str
    where: str
    means: str

    @property
    def level(self) -> Level:
        """How deep it can reach, whether or not it did."""
        if self.what in REACH_KERNELS:
            return Level.KERNEL
        # What a mount holds is compared file by file; what was not looked at is no change.
        return Level.IDENTICAL if self.what in (MOUNT, NOT_LOOKED, *HARMLESS) else Level.PYTHON


MOUNT, NOT_LOOKED = "bind mount over code", "not looked at"
HARMLESS = ("PYTHONSTARTUP", "NVTX_INJECTION64_PATH")
REACH_KERNELS = (
    "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "CUDA_INJECTION64_PATH", "TRITON_OVERRIDE_DIR",
    "TRITON_KERNEL_OVERRIDE", "TRITON_PTXAS_PATH", "ld.so.preload", "preloaded library", "replaced library",
    "library from elsewhere",
)  # fmt: skip


VARIABLES = {
    "LD_PRELOAD": "these libraries are loaded before all others and can replace any function, kernel launches included",
    "LD_AUDIT": "these libraries watch and can redirect every symbol that is bound",
    "LD_LIBRARY_PATH": "libraries of these folders are found before those of the system",
    "PYTHONPATH": "modules of these folders are imported instead of installed ones of the same name",
    "PYTHONHOME": "Python takes its standard modules from there",
    "PYTHONSTARTUP": "runs in interactive Python only",
    "CUDA_INJECTION64_PATH": "the CUDA driver loads this library into every process that uses a GPU",
    "NVTX_INJECTION64_PATH": "loaded by programs that use NVTX",
    "TRITON_OVERRIDE_DIR": "Triton takes kernels from there instead of compiling its own",
    "TRITON_KERNEL_OVERRIDE": "Triton takes edited kernels from its override folder",
    "TRITON_PTXAS_PATH": "Triton assembles its kernels with this program",
    "VLLM_PLUGINS": "vLLM loads these plugins when it starts",
    "SGLANG_PLUGINS": "SGLang loads these plugins when it starts",
}
LOADED_AT_START = re.compile(r"(^|/)(sitecustomize|usercustomize)(\.py|/__init__\.py)$")
PLUGIN_GROUP = re.compile(r"^\[(vllm\.[a-z_.]+|sglang\.[a-z_.]+)\]", re.M)
CODE_MOUNT = re.compile(
    r"/(site-packages|dist-packages|vllm|sglang|sgl-workspace|flashinfer|torch|triton|lib|lib64|bin)(/|$)|\.(py|so)$|/opt/venv"
)
DRIVER = re.compile(r"/(libnvidia|libcuda\.|libcudadebugger|nvidia-|libnvcuvid|libnvoptix|firmware/nvidia|proc/driver)")
"""What NVIDIA's container runtime mounts into every GPU container."""
INSIDE = re.compile(r"^/(usr|lib|lib64|opt)/|/(site|dist|lib)[^/]*-?(packages|dynload)/|/\.cache/|/(nvidia|cuda)")


def of_environment(environ: Mapping[str, str]) -> list[Finding]:
    """Variables that change which code a process loads. LD_LIBRARY_PATH of the CUDA images is no finding."""
    found = []
    for name, means in VARIABLES.items():
        value = environ.get(name, "")
        if not value or (name == "LD_LIBRARY_PATH" and _usual(value)):
            continue
        found.append(Finding(what=name, where=value, means=means))
    return found


def _usual(value: str) -> bool:
    return all(
        not part or re.match(r"/usr/(local/)?(nvidia|cuda)|/(usr/)?(local/)?lib", part) for part in value.split(":")
    )


def of_change(path: str, text: str) -> Finding | None:
    """A file that runs by being there: sitecustomize, a .pth with code, a plugin, ld.so.preload."""
    if LOADED_AT_START.search(path):
        return Finding(what="sitecustomize", where=path, means="every Python process runs this file before the program")
    if path.endswith(".pth"):
        code = [line for line in text.splitlines() if line.startswith(("import ", "import\t"))]
        if code:
            return Finding(what=".pth with code", where=path, means=f"every Python process runs: {code[0][:120]}")
        if text.strip():
            where = f"{path} -> {text.strip().splitlines()[0][:120]}"
            return Finding(what=".pth", where=where, means="packages are imported from that folder too")
    if path.endswith("entry_points.txt") and PLUGIN_GROUP.search(text):
        groups = ", ".join(PLUGIN_GROUP.findall(text))
        return Finding(what="engine plugin", where=path, means=f"the engine loads it when it starts ({groups})")
    if path.lstrip("/") == "etc/ld.so.preload" and text.strip():
        return Finding(what="ld.so.preload", where=text.strip(), means="every program loads these libraries first")
    return None


def of_mounts(mounts: Iterable[Mapping[str, object]]) -> list[Finding]:
    """Mounts of a container (`docker inspect`, Mounts) over places that hold code."""
    found = []
    for mount in mounts:
        target, source = str(mount.get("Destination", "")), str(mount.get("Source", ""))
        if CODE_MOUNT.search(target) and not DRIVER.search(target):
            means = "files of the host are run in place of the image's"
            found.append(Finding(what=MOUNT, where=f"{source} -> {target}", means=means))
    return found


def of_maps(lines: Iterable[str], environ: Mapping[str, str], roots: Iterable[str] = ()) -> list[Finding]:
    """Libraries in a process's memory (/proc/PID/maps) that were preloaded, deleted since, or come from odd places.

    `roots`: folders where its libraries are expected, such as its environment.
    """
    preloaded = {part for part in re.split(r"[:\s]+", environ.get("LD_PRELOAD", "")) if part}
    expected = tuple(root.rstrip("/") + "/" for root in roots)
    found: dict[str, Finding] = {}
    for path in _mapped(lines):
        name = path.removesuffix(" (deleted)")
        if name in found or not LIBRARY.search(name.lower()):
            continue
        if name in preloaded or PurePosixPath(name).name in preloaded:
            found[name] = Finding(what="preloaded library", where=name, means="in memory because of LD_PRELOAD")
        elif path != name:
            found[name] = Finding(what="replaced library", where=name, means="its file was replaced after the start")
        elif not name.startswith(expected) and not INSIDE.search(name):
            found[name] = Finding(
                what="library from elsewhere", where=name, means="not of the system or the environment"
            )
    return list(found.values())


def _mapped(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        parts = line.split(None, 5)
        if len(parts) == 6 and parts[5].startswith("/"):
            yield parts[5].rstrip("\n")


def shadows(folder: str, names: Iterable[str], installed: Iterable[str]) -> list[Finding]:
    """Modules in a folder of PYTHONPATH that hide installed packages."""
    known = {name.removesuffix(".py") for name in installed}
    hidden = sorted(name for name in names if name.removesuffix(".py") in known)
    means = "imported instead of the installed package of the same name"
    return [Finding(what="PYTHONPATH shadow", where=f"{folder}/{name}", means=means) for name in hidden]
