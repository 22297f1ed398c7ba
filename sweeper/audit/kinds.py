"""What a file can do to speed, by its path and content. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath


class Kind(StrEnum):
    """In the order in which a reader wants them."""

    COMPILED = "compiled"
    """Shared objects, cubins, fatbinaries that hold kernels or belong to a kernel package: content decides."""
    SOURCE = "kernel-source"
    """CUDA, Triton, CuTe or CUTLASS sources that are compiled on the user's machine."""
    TABLE = "tuned-table"
    """Tile shapes and launch parameters per GPU and shape. The kernels stay the same: this counts as configuration."""
    SELECTOR = "python-kernel"
    """Python that selects, wraps or configures kernels."""
    QUANTIZATION = "quantization"
    """Settings and Python of quantised formats."""
    PYTHON = "python"
    NATIVE = "native"
    """Other compiled code: executables, libraries without GPU code that no kernel needs. Host-side, as Python is."""
    CONFIG = "config"
    REST = "rest"


class Level(StrEnum):
    """The verdict, from the deepest change to none."""

    KERNEL = "kernel"
    PYTHON = "python"
    CONFIG = "config"
    IDENTICAL = "identical"


LEVELS: dict[Kind, Level] = {
    Kind.COMPILED: Level.KERNEL,
    Kind.SOURCE: Level.KERNEL,
    Kind.TABLE: Level.CONFIG,
    Kind.SELECTOR: Level.PYTHON,
    Kind.QUANTIZATION: Level.PYTHON,
    Kind.PYTHON: Level.PYTHON,
    Kind.NATIVE: Level.PYTHON,
    Kind.CONFIG: Level.CONFIG,
    Kind.REST: Level.IDENTICAL,
}

LIBRARY = re.compile(r"\.(so|cubin|fatbin|hsaco|dll|pyd|dylib)(\.\d+)*$")
GPU_FILES = (".cubin", ".fatbin", ".hsaco")
KERNEL_LIBRARY = re.compile(
    r"(torch|c10|vllm|sglang|sgl_|sgl-|flash|deep_?gemm|deep_?ep|deep_?select|marlin|triton|cutlass|cublas|cudnn|cufft"
    r"|cusparse|cusolver|curand|cuda|nccl|nvrtc|nvjitlink|nvshmem|nvptx|cupti|mkl|dnnl|gomp|iomp|openblas|ggml|llama"
    r"|rocm|hip|rccl|miopen|aiter|xformers|bitsandbytes|tensorrt|nvinfer|exllama|kernel|_moe|_c(_|\.|$)|gemm|_ops\b)"
)
SOURCES = (".cu", ".cuh", ".ptx", ".hip", ".inl", ".cutlass", ".hpp", ".cpp", ".cc", ".c", ".h", ".metal", ".cl")
NO_KERNEL_SOURCE = re.compile(r"(^|/)(usr/include|usr/share|numpy|Cython|pybind11|usr/src)/")
TABLE = re.compile(
    r"((E|N|K|M)=\d+,|device_name=|tuned|tuning|autotune|tactic|nvidia_[abhl]\d+).*\.(json|csv|ya?ml)$", re.I
)
TABLE_FOLDER = re.compile(
    r"(fused_moe|kernels?|quantization|ops|helion|triton\w*)/(.*/)?configs?/.*\.(json|csv|ya?ml)$"
)
SELECTOR = re.compile(
    r"(fused_moe|moe|cutlass|flashinfer|flash_|marlin|deep_?gemm|deep_?ep|triton|kernel|gemm|attention|custom_ops|_ops\b"
    r"|oracle|cute|/ops/|cuda_graph|cudagraph|/compilation/|torch_compile|compile_|platforms/|envs\.py|all_reduce|linear\.py|layers/)"
)
QUANTIZATION = re.compile(r"(quant|nvfp4|mxfp|fp8|fp4|int4|int8|awq|gptq|compressed_tensors|modelopt)")
KERNEL_PYTHON = re.compile(
    rb"@(triton|gluon|helion|tilelang|T|cute|cutlass|tl|wp|numba|cuda)\.(jit|kernel|prim_func|autotune|heuristics)\b"
    rb"|__global__\s+(void|__)|load_inline\(|RawKernel\(|^\s*@(gluon\.)?jit\b",
    re.M,
)
SETTINGS = (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".env", ".jinja", ".conf", ".sh")
TOOLS = re.compile(r"(^|/)(_?pytest\w*|pip|wheel|pluggy|iniconfig)(-[^/]*\.dist-info)?/")
"""Packages that install and test; no server imports them."""
STAMPS = re.compile(r"(^|/)(_version|commit_id|version|_commit|_build_info|build_info|git_version)\.(py|txt)$")
IGNORED = re.compile(
    r"(^|/)(__pycache__/|[^/]*\.(dist-info|egg-info)/"
    r"(RECORD|RECORD\.(jws|p7s)|INSTALLER|REQUESTED|direct_url\.json|WHEEL|SOURCES\.txt|uv_cache\.json|uv_build\.json)$)"
    r"|\.py[co]$"
)
SYSTEM = re.compile(
    r"^(proc|sys|dev|run|tmp)/|^var/(cache|log|lib/dpkg|lib/apt)/|^etc/(ld\.so\.cache|hostname|hosts|resolv\.conf|mtab)$"
    r"|^\.dockerenv$|^usr/share/(doc|man|locale|info|zoneinfo|icons)/"
)
METADATA = re.compile(r"\.(dist-info|egg-info)/(METADATA|PKG-INFO|requires\.txt)$")
ENTRY_POINTS = re.compile(r"\.(dist-info|egg-info)/entry_points\.txt$")


def ignored(path: str) -> bool:
    """Files that differ between any two installations and do nothing."""
    return IGNORED.search(path) is not None


def of_the_system(path: str) -> bool:
    """Files of an image that differ between any two builds or starts and do nothing. Paths without a leading slash."""
    return SYSTEM.search(path) is not None


def is_stamp(path: str) -> bool:
    """Generated files that hold the version or commit of the build."""
    return STAMPS.search(path) is not None


def kind_of(path: str, content: bytes = b"", *, gpu: bool = False, elf: bool = False, system: bool = False) -> Kind:
    """`content`: of a Python file, because Triton and CuTe kernels are Python. `gpu`: GPU code was found in it.

    `elf`: a compiled file whatever its name. `system`: of an image or environment, where most libraries have nothing to
    do with kernels; there the name decides, in a wheel or folder of an engine every library counts as compiled kernels.
    """
    name = PurePosixPath(path)
    lower = path.lower()
    if TOOLS.search(path):
        return Kind.REST
    if gpu or lower.endswith(GPU_FILES):
        return Kind.COMPILED
    if LIBRARY.search(lower):
        return Kind.COMPILED if not system or KERNEL_LIBRARY.search(name.name.lower()) else Kind.NATIVE
    if elf:
        return Kind.NATIVE
    if TABLE.search(path) or TABLE_FOLDER.search(path):
        return Kind.TABLE
    if name.suffix in SOURCES:
        return Kind.REST if NO_KERNEL_SOURCE.search(path) else Kind.SOURCE
    if name.suffix == ".py":
        return _python(lower, content)
    if METADATA.search(path) or ENTRY_POINTS.search(path) or name.suffix == ".pth":
        return Kind.CONFIG
    if name.suffix in SETTINGS or path.startswith("(image)/"):
        return Kind.QUANTIZATION if QUANTIZATION.search(lower) else Kind.CONFIG
    return Kind.REST


def _python(lower: str, content: bytes) -> Kind:
    if KERNEL_PYTHON.search(content):
        return Kind.SOURCE
    if QUANTIZATION.search(lower):
        return Kind.QUANTIZATION
    return Kind.SELECTOR if SELECTOR.search(lower) else Kind.PYTHON


def level_of(kind: Kind, path: str) -> Level:
    """What a change of this file amounts to. Quantisation settings that are no Python are configuration."""
    if kind is Kind.QUANTIZATION and not path.endswith(".py"):
        return Level.CONFIG
    return LEVELS[kind]
