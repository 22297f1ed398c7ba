"""What a sweep is made of: cells, workloads, policy, launch plans.

    Matrix -> Expansion(cells, excluded) -> Cell -> LaunchPlan | Unsupported

All frozen and keyword-only. Durations in seconds, sizes in bytes, unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LAUNCHERS = ("docker", "process", "attach")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """Degrees of parallelism. World size is tp * pp * dp; `ep` spreads experts over ranks that exist already."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    """1: experts are tensor-sharded. >1: expert parallel. vLLM knows only on/off, with size tp * dp."""

    @property
    def world_size(self) -> int:
        return self.tp * self.pp * self.dp

    def label(self) -> str:
        """Short and parseable: `tp4`, `tp2 pp2`, `tp4 ep4`."""
        parts = [f"tp{self.tp}"]
        parts += [f"{name}{value}" for name, value in (("pp", self.pp), ("dp", self.dp), ("ep", self.ep)) if value > 1]
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculative:
    """Speculative decoding. `method` is the engine-neutral name: mtp, ngram, eagle, eagle3, draft_model, suffix."""

    method: str
    tokens: int
    """Draft tokens per step."""
    model: str | None = None
    moe_backend: str | None = None
    """MoE backend of the draft; None: the engine lets it inherit the target's."""
    extra: tuple[tuple[str, str], ...] = ()
    """Engine-specific keys of the speculative configuration, JSON values as text."""

    def label(self) -> str:
        return f"{self.method}{self.tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One server configuration. Every field is classified in `identity.py` as identity or run-time."""

    engine: str
    model: str
    engine_version: str | None = None
    """Declared version, e.g. "0.33.0"; decides flag or environment variable. None: newest known."""
    image: str | None = None
    python: str | None = None
    """Interpreter of the environment that holds the engine (process launcher)."""
    command: tuple[str, ...] = ()
    """argv template of the `command` engine."""
    url: str | None = None
    """Server that is already up (attach launcher)."""
    quantization: str | None = None
    """Family of the checkpoint or of the on-line method: nvfp4, nvfp4-w4a16, mxfp4, fp8, fp8-block, bf16, int4, ..."""
    quantization_flag: str | None = None
    """Value handed to the engine's --quantization; None: the engine reads the checkpoint."""
    moe_backend: str = "auto"
    linear_backend: str | None = None
    attention_backend: str | None = None
    parallelism: Parallelism = field(default_factory=Parallelism)
    speculative: Speculative | None = None
    env: tuple[tuple[str, str], ...] = ()
    extra_args: tuple[str, ...] = ()
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    name: str | None = None
    """Name given by the matrix author, e.g. the published row it stands for."""
    launcher: str | None = None
    """Launcher that this cell insists on; None: the run's."""

    def label(self) -> str:
        """What a person calls this cell when the author gave it no name."""
        parts = [self.engine, self.moe_backend, self.parallelism.label()]
        if self.speculative:
            parts.append(self.speculative.label())
        return self.name or " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of a launched server. ISL and OSL in tokens."""

    name: str = "decode"
    preset: str = "sustained-decode"
    isl: int = 128
    osl: int = 512
    concurrency: tuple[int, ...] = (1,)
    window_s: float = 30.0
    """Longest measuring window; it closes earlier when the first stream ends."""
    warmup_s: float = 2.0
    requests: int | None = None
    """For presets that send a fixed number of requests."""
    prompts: str = "prose"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Longest time a phase may take, in seconds."""

    pull_s: float = 3600.0
    ready_s: float = 1800.0
    first_answer_s: float = 600.0
    canary_s: float = 300.0
    sanity_s: float = 300.0
    measure_s: float = 1800.0
    stop_s: float = 60.0
    gpu_free_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often, how long, in which order."""

    launches: int = 1
    """Server launches per cell that is still in contention: the unit of repetition."""
    confirm_top: int = 0
    """How many leaders (and the reference) get fresh, interleaved confirming launches."""
    deadlines: Deadlines = field(default_factory=Deadlines)
    reference: tuple[tuple[str, str], ...] = ()
    """Matcher of the reference cell: (field path, value as text)."""
    order_seed: int | None = None
    """None: the order written, expensive axis slowest. A number: shuffled blocks with that seed."""
    preflight: bool = False
    """Try the canary before the real weights."""
    canary: str | None = None
    """Folder of a canary that exists; None: built like the model when preflight is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine a matrix is meant for; lets `plan` work where no GPU is."""

    gpu: str | None = None
    count: int | None = None
    memory_gib: float | None = None
    """Per GPU."""
    sm: str | None = None
    """Compute capability, "12.0"."""
    bandwidth_gb_s: float | None = None
    """Per GPU, 1e9 bytes per second."""
    link: str | None = None
    """pcie5, pcie4, nvlink, none."""
    power_limit_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A cell that will not run, and the rule that says so."""

    cell: Cell
    cell_id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell that will run, with its identity and what the author should know before."""

    cell: Cell
    cell_id: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """Cells in run order, and what was left out."""

    cells: tuple[PlannedCell, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A matrix file after validation."""

    name: str
    path: str
    cells: tuple[Cell, ...]
    """Expanded product, in run order, before feasibility."""
    author_excluded: tuple[tuple[Cell, str], ...]
    """Cells removed by an exclude rule, with its `why`."""
    workloads: tuple[Workload, ...]
    policy: Policy
    hardware: Hardware
    title: str = ""
    notes: tuple[str, ...] = ()
    """What the author should know about the file itself, such as an exclude rule that matches nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host folder seen by the server."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """Everything needed to start one server, printable and without side effects.

    `argv` is what runs inside the container or environment. `{port}` in argv and env values stands for the port that
    the launcher picks, `{host}` for the address to listen on.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    served_model: str
    """Model name to put into requests."""
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    """None: the image's own."""
    mounts: tuple[Mount, ...] = ()
    cwd: str | None = None
    gpus: int = 0
    """GPUs needed; 0 for a CPU engine."""
    shm_bytes: int | None = None
    ipc_host: bool = False
    health_path: str = "/health"
    metrics_path: str | None = "/metrics"
    url: str | None = None
    """Set for `attach`: nothing is started."""
    container_port: int = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """The engine cannot express this cell; the reason names flag and version."""

    reason: str
