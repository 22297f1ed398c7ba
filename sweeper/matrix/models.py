"""The matrix file as typed models. They check what a person wrote; the JSON Schema for editors is theirs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from sweeper.core.presets import PRESETS
from sweeper.engines import registry
from sweeper.matrix.fields import (
    AddressText,
    Arguments,
    Command,
    Concurrency,
    Degree,
    ImageText,
    JsonTexts,
    PathText,
    Pattern,
    Seconds,
    Text,
    Variables,
    complaint,
    nearest,
    nothing,
)


def _engine(name: str) -> str:
    if name not in registry.names():
        raise complaint(
            f"'{name}' is not an engine{nearest(name, registry.names())} Accepted: {_listed(registry.names())}"
        )
    return name


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(values)


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise complaint(f"'{name}' is not a preset{nearest(name, tuple(PRESETS))} Accepted: {_listed(tuple(PRESETS))}")
    return name


def _preset_names(schema: dict[str, Any]) -> None:
    schema["enum"] = list(PRESETS)


def _engine_names(schema: dict[str, Any]) -> None:
    schema["enum"] = list(registry.names())


EngineName = Annotated[Text, AfterValidator(_engine), Field(json_schema_extra=_engine_names)]

PresetName = Annotated[Text, AfterValidator(_preset), Field(json_schema_extra=_preset_names)]


class Strict(BaseModel):
    """Unknown keys are errors; numbers are not made out of text."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=False)


class ParallelismFile(Strict):
    """Degrees of parallelism; world size is tp x pp x dp."""

    tp: Degree = Field(default=1, description="Tensor parallel ranks.")
    pp: Degree = Field(default=1, description="Pipeline stages.")
    dp: Degree = Field(default=1, description="Data parallel replicas.")
    ep: Degree = Field(default=1, description="Ranks that experts are spread over; vLLM knows 1 (off) or tp x dp (on).")


class SpeculativeFile(Strict):
    """Speculative decoding; `none` switches it off."""

    method: Literal["mtp", "ngram", "ngram_gpu", "suffix", "eagle", "eagle3", "draft_model", "dflash", "dspark"]
    tokens: Annotated[int, Field(ge=1, le=64)] = Field(description="Draft tokens per step.")
    model: PathText | None = Field(default=None, description="Draft model: folder or hub id.")
    moe_backend: Text | None = Field(
        default=None, description="MoE backend of the draft; otherwise it inherits the target's."
    )
    extra: JsonTexts = Field(default_factory=dict, description="Engine-specific keys of the speculative configuration.")


SpeculativeOrNone = Annotated[
    SpeculativeFile | None,
    BeforeValidator(nothing, json_schema_input_type=SpeculativeFile | Literal["none"] | None),
]


class CellFields(Strict):
    """What a cell is made of. The same keys stand at the top, as an axis, in `linked` and in `cells`."""

    engine: EngineName | None = Field(default=None, description="Inference engine.")
    engine_version: PathText | None = Field(
        default=None,
        description="Declared version, e.g. 0.33.0: decides flag or environment variable. Default: newest known.",
    )
    image: ImageText | None = Field(
        default=None, description="Docker image reference; the digest found at launch is recorded."
    )
    python: PathText | None = Field(default=None, description="Interpreter of the environment that holds the engine.")
    command: Command | None = Field(
        default=None, description="argv template of the `command` engine, with {model} {port} {host} {tp} and others."
    )
    url: AddressText | None = Field(default=None, description="A server that is already up; it is never stopped.")
    model: PathText | None = Field(default=None, description="Checkpoint folder (./x, /x, ~/x) or hub id (org/name).")
    quantization: Text | None = Field(
        default=None, description="Family of the checkpoint: nvfp4, nvfp4-w4a16, mxfp4, fp8, fp8-block, bf16, int4, ..."
    )
    quantization_flag: Text | None = Field(
        default=None, description="Value for the engine's --quantization; without it the engine reads the checkpoint."
    )
    moe_backend: Text | None = Field(
        default=None, description="MoE kernel backend as the engine's flag names it, or auto."
    )
    linear_backend: Text | None = Field(default=None, description="Kernel backend of the dense layers.")
    attention_backend: Text | None = Field(default=None, description="Attention backend.")
    parallelism: ParallelismFile | None = Field(default=None, description="Degrees of parallelism.")
    speculative: SpeculativeOrNone = Field(default=None, description="Speculative decoding, or none.")
    env: Variables | None = Field(
        default=None, description="Environment of the server; null takes a variable away again."
    )
    extra_args: Arguments | None = Field(default=None, description="Arguments appended to the server's command line.")
    max_model_len: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Context limit in tokens.")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Share of each GPU's memory that the engine may take."
    )
    launcher: Literal["docker", "process", "attach"] | None = Field(
        default=None, description="Launcher this cell insists on; otherwise that of the run."
    )


CELL_KEYS = tuple(CellFields.model_fields)

_axis_fields: dict[str, Any] = {
    name: (
        Annotated[list[info.rebuild_annotation()], Field(min_length=1)] | None,  # type: ignore[misc]
        Field(default=None, description=f"Values of this axis. {info.description or ''}"),
    )
    for name, info in CellFields.model_fields.items()
}
AxesFile = create_model("AxesFile", __base__=Strict, __doc__="One list per axis.", **_axis_fields)


class ExtraCell(CellFields):
    """One more cell: these keys over those at the top. Axes do not apply to it."""

    name: Text | None = Field(default=None, description="What to call this cell, e.g. the published row it stands for.")


class ParallelismMatch(Strict):
    """Degrees to match."""

    tp: Pattern | None = None
    pp: Pattern | None = None
    dp: Pattern | None = None
    ep: Pattern | None = None


class SpeculativeMatch(Strict):
    """Parts of the speculation to match."""

    method: Pattern | None = None
    tokens: Pattern | None = None
    model: Pattern | None = None
    moe_backend: Pattern | None = None


def _speculation(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) or value is None else value


class CellMatch(Strict):
    """Cells for which every key given here agrees. A list holds alternatives; `*` is a wildcard."""

    name: Pattern | None = None
    engine: Pattern | None = None
    engine_version: Pattern | None = None
    image: Pattern | None = None
    python: Pattern | None = None
    url: Pattern | None = None
    model: Pattern | None = None
    quantization: Pattern | None = None
    quantization_flag: Pattern | None = None
    moe_backend: Pattern | None = None
    linear_backend: Pattern | None = None
    attention_backend: Pattern | None = None
    parallelism: ParallelismMatch | None = None
    speculative: Annotated[
        SpeculativeMatch | None,
        BeforeValidator(_speculation, json_schema_input_type=SpeculativeMatch | str | None),
    ] = None
    env: dict[str, Pattern] | None = None
    extra_args: Pattern | None = None
    max_model_len: Pattern | None = None


class ExcludeRule(CellMatch):
    """Cells that do not run, and why. The first rule that matches gives the reason."""

    why: Annotated[Text, Field(min_length=1)] = Field(description="Printed beside every cell this rule removes.")


class WorkloadFile(Strict):
    """What is asked of a launched server: a preset, and the keys that shall differ from it."""

    name: Text | None = Field(default=None, description="Name in reports; default: the preset's own.")
    preset: PresetName = Field(default="sustained-decode", description="Protocol that the load follows.")
    isl: Annotated[int, Field(ge=1)] = Field(default=128, description="Input sequence length in tokens.")
    osl: Annotated[int, Field(ge=1)] = Field(default=1024, description="Output sequence length in tokens.")
    concurrency: Concurrency = Field(default=[1], description="Simultaneous streams; one measurement per number.")
    window_s: Seconds = Field(default=30.0, description="Longest measuring window in seconds.")
    warmup_s: Annotated[float, Field(ge=0)] = Field(default=2.0, description="Seconds before the window opens.")
    requests: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Requests, for presets that send a fixed number."
    )
    prompts: PathText = Field(default="prose", description="Prompt set.")
    seed: int = Field(default=0, description="Which prompts are drawn.")


class DeadlinesFile(Strict):
    """Longest time a phase may take, in seconds."""

    pull_s: Seconds = 3600.0
    ready_s: Seconds = 1800.0
    first_answer_s: Seconds = 600.0
    canary_s: Seconds = 300.0
    sanity_s: Seconds = 300.0
    measure_s: Seconds = 1800.0
    stop_s: Seconds = 60.0
    gpu_free_s: Seconds = 120.0


class PolicyFile(Strict):
    """How often, how long, in which order."""

    launches: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Server launches per cell: the unit of repetition."
    )
    confirm_top: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Leaders that get fresh confirming launches."
    )
    deadlines: DeadlinesFile = Field(default_factory=lambda: DeadlinesFile(), description="Per phase, in seconds.")
    reference: CellMatch | None = Field(default=None, description="The cell that others are compared with.")
    order_seed: int | None = Field(
        default=None, description="A number shuffles the cells; without one they run as written."
    )
    preflight: bool = Field(default=False, description="Try the canary before the real weights.")
    canary: PathText | None = Field(default=None, description="Folder of a canary that exists; otherwise one is built.")


class HardwareFile(Strict):
    """The machine the matrix is meant for; `plan` uses it where no GPU is."""

    gpu: Text | None = Field(default=None, description="Name of the GPU.")
    count: Annotated[int, Field(ge=0, le=4096)] | None = Field(default=None, description="How many of them.")
    memory_gib: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Memory per GPU in GiB.")
    sm: Annotated[Text, Field(pattern=r"^\d+\.\d$")] | None = Field(
        default=None, description='Compute capability, "12.0".'
    )
    bandwidth_gb_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Per GPU, 1e9 bytes per second."
    )
    link: Literal["pcie5", "pcie4", "pcie3", "nvlink", "none"] | None = Field(
        default=None, description="Between the GPUs."
    )
    power_limit_w: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Per GPU, in watts.")


class MatrixFile(CellFields):
    """A sweep: fixed values, axes over them, extra cells, what is excluded, what is asked, how often."""

    title: Text | None = Field(default=None, description="The question this sweep answers.")
    axes: AxesFile | None = Field(default=None, description="Every combination runs; the first axis changes slowest.")  # type: ignore[valid-type]
    linked: list[AxesFile] | None = Field(  # type: ignore[valid-type]
        None, description="Lists of equal length that change together, row by row; each group is one axis."
    )
    cells: list[ExtraCell] | None = Field(default=None, description="Cells beside the product of the axes.")
    exclude: list[ExcludeRule] | None = Field(default=None, description="Cells that do not run, each with its why.")
    workloads: Annotated[list[WorkloadFile], Field(min_length=1)] | None = Field(
        default=None, description="What is asked of each server; all of them share one launch."
    )
    policy: PolicyFile = Field(default_factory=lambda: PolicyFile(), description="Repeats, deadlines, order.")
    hardware: HardwareFile = Field(default_factory=lambda: HardwareFile(), description="The machine it is meant for.")
