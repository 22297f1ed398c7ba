"""What a file can do to speed, by its path and name. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath


class Kind(StrEnum):
    """In the order in which a reader wants them."""

    COMPILED = "compiled"
    """Shared objects, cubins, fatbinaries: content decides."""
    SOURCE = "kernel-source"
    """CUDA, Triton, CuTe or CUTLASS sources that are compiled on the user's machine."""
    TABLE = "tuned-table"
    """Tile shapes and launch parameters per GPU and shape."""
    SELECTOR = "python-kernel"
    """Python that selects, wraps or configures kernels."""
    QUANTIZATION = "quantization"
    """Settings and Python of quantised formats."""
    PYTHON = "python"
    CONFIG = "config"
    REST = "rest"


KERNEL_KINDS = (Kind.COMPILED, Kind.SOURCE)

COMPILED = re.compile(r"\.(so|cubin|fatbin|hsaco|dll|pyd)(\.[\d.]+)*$")
SOURCES = (".cu", ".cuh", ".ptx", ".hip", ".inl", ".cutlass", ".hpp", ".cpp", ".cc", ".c", ".h")
TABLE = re.compile(r"(E=\d+,N=\d+|device_name=|tuned|autotune|tactic).*\.(json|csv|yaml)$", re.IGNORECASE)
SELECTOR = re.compile(
    r"(fused_moe|moe|cutlass|flashinfer|marlin|deep_?gemm|triton|kernel|gemm|attention|custom_ops|_ops|oracle|cute)"
)
QUANTIZATION = re.compile(r"(quant|nvfp4|mxfp4|fp8|int4|awq|gptq|compressed_tensors|modelopt)")
TRITON = re.compile(rb"@triton\.(jit|autotune)|@cute\.(jit|kernel)|from cutlass import cute|import cutlass\.cute")
IGNORED = re.compile(r"(^|/)(__pycache__/|[^/]*\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$)|\.pyc$")


def ignored(path: str) -> bool:
    """Files that differ between any two installations and do nothing."""
    return IGNORED.search(path) is not None


def kind_of(path: str, head: bytes = b"") -> Kind:
    """`head`: the file's content, for Python; Triton and CuTe kernels are Python files that are compiled."""
    name = PurePosixPath(path)
    lower = path.lower()
    if COMPILED.search(lower):
        return Kind.COMPILED
    if TABLE.search(path):
        return Kind.TABLE
    if name.suffix in SOURCES:
        return Kind.SOURCE
    if name.suffix == ".py":
        if TRITON.search(head):
            return Kind.SOURCE
        if QUANTIZATION.search(lower):
            return Kind.QUANTIZATION
        return Kind.SELECTOR if SELECTOR.search(lower) else Kind.PYTHON
    if name.suffix in (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".txt", ".env"):
        return Kind.QUANTIZATION if QUANTIZATION.search(lower) else Kind.CONFIG
    return Kind.REST
