"""What vLLM accepts, by version, number format, GPU and layout. Sources are paths in its wheel or issues."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.core import families
from sweeper.core.arguments import flag_in, value_of
from sweeper.core.rules import Case, Reason, no, perhaps
from sweeper.core.versions import written
from sweeper.core.vllm_values import (
    LINEAR_VALUES,
    MOE_BY_FORMAT,
    ORACLE,
    REMOVED_ENV,
    first_version_of,
    moe_values,
    normal,
)

_ORACLES = "vllm/model_executor/layers/fused_moe/oracle"
_EXPERTS = "vllm/model_executor/layers/fused_moe/experts"
_IGNORED_SINCE = {"humming": (0, 30), "marlin": (0, 33)}
"""From here on unquantized layers take their own backend instead of refusing to start; 0.32 refused marlin on CPU."""
_TABLES_READ_SINCE = (0, 24)
"""The formats' tables were read in 0.32 and 0.33 and their answers seen in 0.24; before that a rule only warns."""


def _backend(case: Case) -> str | None:
    """The backend that a flag will carry; None where the author forces one or none is asked for."""
    if flag_in(case.cell.extra_args, "--moe-backend", "--kernel-config", "--kernel-config.moe-backend"):
        return None
    value = normal(case.cell.moe_backend)
    return None if value == "auto" or case.version < (0, 17) else value


def _known_value(case: Case) -> Iterator[Reason]:
    value = _backend(case)
    known = moe_values(case.version)
    if value is None or value in known:
        return
    since = first_version_of(value)
    hint = f"it came with {written(since)}" if since else f"there are {', '.join(known)}"
    if value == "flashinfer":
        here = "flashinfer_b12x" if case.sm_family == 120 else "flashinfer_trtllm or flashinfer_cutedsl"
        hint = f"say which one: flashinfer_cutlass, {here}"
    text, source = (
        f"vLLM {written(case.version)} has no --moe-backend {value}: {hint}",
        "MoEBackend in vllm/config/kernel.py",
    )
    # 0.21 lies between two wheels that were compared: what 0.22 knows it may know.
    yield perhaps(text, source) if since == (0, 22) and case.version >= (0, 21) else no(text, source)


def _format_accepts(case: Case) -> Iterator[Reason]:
    value = _backend(case)
    if value is None or case.format not in MOE_BY_FORMAT or value not in moe_values(case.version):
        return
    if case.geometry is not None and not case.geometry.is_moe:
        yield perhaps(f"--moe-backend {value} and a model without experts: nothing changes", "vllm/config/kernel.py")
        return
    accepted = MOE_BY_FORMAT[case.format]
    if value in accepted:
        return
    source = f"{_ORACLES}/{ORACLE[case.format]}"
    if case.format == "bf16" and value in _IGNORED_SINCE and case.version >= _IGNORED_SINCE[value]:
        yield perhaps(f"unquantized experts: {value} is treated as auto", f"{source}; vllm #56832")
        return
    text = f"{value} is not supported for {case.family} experts (accepted: {', '.join(sorted(accepted))})"
    certain = case.version >= _TABLES_READ_SINCE and not case.cpu
    yield no(text, source) if certain else perhaps(text, source)


def _fp8_cutlass(case: Case) -> Iterator[Reason]:
    if _backend(case) != "cutlass" or case.format != "fp8" or case.cpu:
        return
    source = f"{_ORACLES}/fp8.py"
    if case.family in ("fp8", "fp8-block"):
        text = f"vLLM's CUTLASS experts are disabled for {case.family}: only compressed-tensors W8A8 FP8 allows them"
        # `fp8` in a matrix may mean compressed-tensors, which allows them: only the checkpoint's config is certain.
        shape = case.geometry
        config = shape is not None and shape.quantization == "fp8" and not shape.format_guessed
        read = case.family == "fp8-block" or config
        yield _derived(case, text, source) if read else perhaps(text, source)
    if case.sm is not None and case.sm >= 110:
        yield _derived(case, "vLLM's CUTLASS FP8 grouped GEMM has no kernel above SM 10.x", "vllm/_custom_ops.py")


_BLACKWELL_DATACENTRE = ("flashinfer_trtllm", "flashinfer_cutedsl", "flashinfer_moe_ep_cutedsl", "deep_gemm_mega_moe")
_ROCM = ("aiter", "aiter_mega_moe", "aiter_triton_mxfp4_bf16", "aiter_triton_mxfp4_mxfp4", "flydsl", "rdna3")


def _gpu_accepts(case: Case) -> Iterator[Reason]:
    value, sm, group = _backend(case), case.sm, case.sm_family
    if value is None or sm is None or group is None:
        return
    shown = f"SM {sm // 10}.{sm % 10}"
    if value in _ROCM:
        yield no(f"{value} is for AMD GPUs, this one is {shown}", "vllm/platforms/rocm.py")
    if value in _BLACKWELL_DATACENTRE and group != 100 and case.format != "int4":
        text = f"{value} has kernels for SM 10.x only, this GPU is {shown}"
        yield _derived(case, text, f"_supports_current_device in {_EXPERTS}; vllm #37751")
    if case.format == "nvfp4" and value in ("cutlass", "flashinfer_cutlass") and sm < 100:
        text = f"{value} needs FP4 tensor cores (SM 10.0 or later), this GPU is {shown}"
        yield _derived(case, text, f"{_EXPERTS}; refused on H200 by 0.24.0")
    if value == "flashinfer_b12x" and group != 120:
        yield no(f"flashinfer_b12x is for SM 12.x, this GPU is {shown}", "flashinfer/fused_moe/cute_dsl/b12x_moe.py")
    if value == "b12x" and group != 120:
        yield perhaps(f"b12x is written for SM 12.x, this GPU is {shown}", f"{_EXPERTS}/b12x")
    if value == "triton" and case.format == "mxfp4" and group == 120:
        yield perhaps("Triton's MXFP4 kernel wants more than the 99 KiB of shared memory of SM 12.x", "triton #8182")
    if value == "flashinfer_cutlass" and case.family == "fp8-block" and group != 90:
        yield perhaps(f"FlashInfer's block-FP8 CUTLASS path is for SM 9.0, this GPU is {shown}", f"{_ORACLES}/fp8.py")
    if value in ("cutlass", "flashinfer_cutlass") and case.format == "nvfp4" and sm == 120 and case.version < (0, 22):
        yield perhaps(
            "FP4 grouped GEMM on SM 12.0 fails to initialise in builds before FlashInfer 0.6.11",
            "NVIDIA/cutlass #3096; flashinfer #2723",
        )


def _derived(case: Case, text: str, source: str) -> Reason:
    return no(text, source) if case.version >= _TABLES_READ_SINCE else perhaps(text, source)


def _weight_only(case: Case) -> Iterator[Reason]:
    value = _backend(case)
    if (
        case.family == "nvfp4-w4a16"
        and value in ("cutlass", "flashinfer_cutlass", "flashinfer_trtllm")
        and not case.cpu
    ):
        yield _derived(
            case, f"{value} needs quantized activations, the checkpoint is weight-only (W4A16)", f"{_ORACLES}/nvfp4.py"
        )


_NO_CUTLASS_OVER = (
    "deepep_high_throughput",
    "flashinfer_all2allv",
    "flashinfer_nvlink_two_sided",
    "flashinfer_nvlink_one_sided",
)
"""What every CUTLASS experts class refuses in 0.32; over DeepEP's low-latency exchange FP8 has a class of its own."""


def _expert_parallel(case: Case) -> Iterator[Reason]:
    value, p = _backend(case), case.cell.parallelism
    if p.ep == 1 or value is None:
        return
    if value in ("b12x", "flashinfer_b12x") and not case.cpu:
        yield no(f"{value} does not support expert parallelism", f"_supports_parallel_config in {_EXPERTS}")
    a2a = value_of(case.cell.extra_args, "--all2all-backend")
    # Without data parallelism vLLM exchanges nothing all-to-all and the choice has no effect.
    if value == "cutlass" and p.dp > 1 and a2a and normal(a2a) != "allgather_reducescatter":
        text = f"cutlass with experts spread works only over allgather_reducescatter, not {a2a}"
        yield _derived(case, text, _EXPERTS) if normal(a2a) in _NO_CUTLASS_OVER else perhaps(text, _EXPERTS)
    if value == "flashinfer_trtllm" and flag_in(case.cell.extra_args, "--enable-eplb"):
        yield perhaps("flashinfer_trtllm's monolithic kernel does not work with --enable-eplb", _EXPERTS)
    if value == "marlin" and a2a and "flashinfer" in a2a:
        yield perhaps("marlin does not work over FlashInfer's two-sided all-to-all", _EXPERTS)


def _environment(case: Case) -> Iterator[Reason]:
    for name, _ in case.cell.env:
        gone, instead = REMOVED_ENV.get(name, ((9**9,), ""))
        if case.version >= gone:
            yield perhaps(
                f"{name} is ignored since vLLM {written(gone)}: use {instead}",
                "vllm/envs.py; unknown variables warn only",
            )


def _draft(case: Case) -> Iterator[Reason]:
    spec = case.cell.speculative
    if spec is None or spec.method not in ("mtp", "nextn"):
        return
    if case.geometry is not None and not case.geometry.mtp_layers:
        yield perhaps("the model's config lists no prediction layers for MTP", "num_nextn_predict_layers")
    value = _backend(case)
    if spec.moe_backend is not None:
        wanted = normal(spec.moe_backend)
        if case.version >= (0, 17) and wanted not in moe_values(case.version):
            yield no(f"vLLM {written(case.version)} has no MoE backend {wanted} (draft)", "vllm/config/kernel.py")
        return
    if value is None or case.format in (None, "bf16") or (case.geometry is not None and not case.geometry.is_moe):
        return
    if value not in MOE_BY_FORMAT["bf16"] and not (value in ("marlin", "humming") and case.version >= (0, 30)):
        yield perhaps(
            f"the MTP head inherits --moe-backend {value}; where the checkpoint leaves that head unquantized, "
            "vLLM stops (set speculative.moe_backend: auto, from 0.19.1)",
            "vllm/config/speculative.py; vllm #56832, #51960",
        )


def _pipeline(case: Case) -> Iterator[Reason]:
    spec = case.cell.speculative
    if spec is None or case.cell.parallelism.pp == 1:
        return
    if case.version < (0, 10):
        yield no("speculation with pipeline parallelism is not supported", "vllm/engine/arg_utils.py, V1 since 0.9")
        return
    yield perhaps(
        f"speculation ({spec.method}) with pp={case.cell.parallelism.pp} is refused or moved to the old model runner "
        "by many versions",
        "vllm/config/vllm.py",
    )


def _linear(case: Case) -> Iterator[Reason]:
    value = case.cell.linear_backend
    if value is None or normal(value) in LINEAR_VALUES:
        return
    text = f"--linear-backend {value} is not a value known in 0.32 ({', '.join(sorted(LINEAR_VALUES))})"
    source = "LinearBackend in vllm/config/kernel.py"
    yield no(text, source) if case.version[:2] == (0, 32) else perhaps(text, source)


def _cuda_13(case: Case) -> Iterator[Reason]:
    if _backend(case) == "flashinfer_b12x" and case.cell.image and "cu12" in case.cell.image:
        yield no("flashinfer_b12x needs CUDA 13, the image is for CUDA 12", "flashinfer/fused_moe/cute_dsl/b12x_moe.py")


def _data_parallel(case: Case) -> Iterator[Reason]:
    if (
        case.cell.parallelism.dp > 1
        and families.table(case.family) == "bf16"
        and _backend(case) == "flashinfer_cutlass"
    ):
        yield perhaps("flashinfer_cutlass in bf16 is not chosen with dp > 1", f"{_ORACLES}/unquantized.py")


RULES = (
    _known_value,
    _format_accepts,
    _fp8_cutlass,
    _gpu_accepts,
    _weight_only,
    _expert_parallel,
    _environment,
    _draft,
    _pipeline,
    _linear,
    _cuda_13,
    _data_parallel,
)
