"""What SGLang 0.5.x accepts. Read in 0.5.23 (sglang/srt/arg_groups, layers/quantization); older versions only warn."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.core.arguments import flag_in
from sweeper.core.rules import Case, Reason, no, perhaps

MOE_VALUES = frozenset(
    "auto deep_gemm triton triton_kernel flashinfer_trtllm experimental_sgl_trtllm flashinfer_trtllm_routed "
    "flashinfer_cutlass flashinfer_mxfp4 flashinfer_cutedsl flashinfer_megamoe cutlass aiter marlin humming "
    "experimental_sgl_marlin lora_cutedsl lora_triton lora_marlin hpc_ops megamoe intel_xpu".split()
)
FP4_LINEAR_VALUES = frozenset(
    "auto flashinfer_cudnn flashinfer_cutedsl flashinfer_cutlass flashinfer_trtllm marlin".split()
)
_READ = (0, 5, 20)


def _certain(case: Case, text: str, source: str) -> Reason:
    return no(text, source) if case.version >= _READ and not case.cpu else perhaps(text, source)


def _value(case: Case) -> str:
    return case.cell.moe_backend.strip().lower().replace("-", "_")


def _known_value(case: Case) -> Iterator[Reason]:
    value = _value(case)
    if value not in MOE_VALUES:
        text = f"SGLang has no --moe-runner-backend {value}: there are {', '.join(sorted(MOE_VALUES))}"
        yield _certain(case, text, "sglang/srt/arg_groups")
    linear = case.cell.linear_backend
    if linear is not None and case.format == "nvfp4" and linear.replace("-", "_") not in FP4_LINEAR_VALUES:
        text = f"SGLang has no --fp4-gemm-backend {linear}: there are {', '.join(sorted(FP4_LINEAR_VALUES))}"
        yield _certain(case, text, "sglang/srt/arg_groups")


def _format(case: Case) -> Iterator[Reason]:
    value, group = _value(case), case.sm_family
    if case.format == "nvfp4":
        if value == "cutlass":
            # For compressed-tensors it takes FlashInfer's without a word: compressed_tensors_w4a4_nvfp4_moe.py.
            text = "cutlass is not supported for NVFP4 experts of ModelOpt: SGLang asks for flashinfer_cutlass"
            source = "sglang/srt/layers/quantization/modelopt_quant.py"
            modelopt = (case.cell.quantization_flag or "").startswith("modelopt")
            yield _certain(case, text, source) if modelopt else perhaps(text, source)
        if value.startswith("flashinfer_trtllm") and group is not None and group != 100:
            yield _certain(case, f"{value} has kernels for SM 10.x only", "sglang/srt/arg_groups/overrides.py")
        if value == "auto" and group == 120 and case.cell.quantization_flag not in (None, "modelopt_fp4"):
            yield perhaps(
                "auto resolves to flashinfer_trtllm, a kernel for SM 10.x, unless --quantization is modelopt_fp4",
                "sglang/srt/layers/quantization/modelopt_quant.py",
            )
    if case.format == "fp8" and value in ("cutlass", "flashinfer_mxfp4", "triton_kernel"):
        yield perhaps(f"{value} may be replaced by triton for FP8 experts", "Fp8MoEMethod in sglang/srt")


def _experts(case: Case) -> Iterator[Reason]:
    p, value, shape = case.cell.parallelism, _value(case), case.geometry
    if p.ep == 1:
        return
    if p.ep != p.tp and not flag_in(case.cell.extra_args, "--moe-dp-size"):
        yield _certain(
            case, f"ep={p.ep} must equal tp={p.tp} unless --moe-dp-size is given", "parallel_hook.py in sglang/srt"
        )
    if value == "flashinfer_cutlass" and p.ep not in (1, p.tp):
        yield _certain(case, "flashinfer_cutlass takes ep = 1 or ep = tp", "sglang/srt/arg_groups")
    if value == "cutlass" and case.format == "fp8":
        # The check asks for the method `fp8`, which is neither compressed-tensors nor ModelOpt.
        text, source = "cutlass in FP8 takes ep = 1 only", "sglang/srt/arg_groups"
        method = case.family == "fp8-block" or case.cell.quantization_flag == "fp8"
        yield _certain(case, text, source) if method else perhaps(text, source)
    if shape is not None and shape.is_moe and shape.experts % p.ep and not _redundant(case):
        yield _certain(case, f"{shape.experts} experts do not divide by ep={p.ep}", "sglang/srt/layers/moe/ep_moe")


def _redundant(case: Case) -> bool:
    """Copies of experts are dealt with the rest: their number divides, not the model's."""
    return flag_in(case.cell.extra_args, "--ep-num-redundant-experts")


def _pipeline(case: Case) -> Iterator[Reason]:
    spec = case.cell.speculative
    if spec is None or case.cell.parallelism.pp == 1:
        return
    if spec.method not in ("mtp", "nextn", "eagle"):
        yield _certain(
            case, f"pp > 1 allows EAGLE speculation only, not {spec.method}", "validation_hook.py in sglang/srt"
        )
    elif not flag_in(case.cell.extra_args, "--disable-overlap-schedule"):
        yield perhaps("pp > 1 with speculation needs --disable-overlap-schedule", "validation_hook.py in sglang/srt")


RULES = (_known_value, _format, _experts, _pipeline)
