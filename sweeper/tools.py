"""The real adapters, built by name for one sweep. Imported lazily where a command can do without them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.canaries import check_canary, make_preflight
from sweeper.clock import SystemClock
from sweeper.core import observations as seen
from sweeper.core.effective import EffectiveConfig
from sweeper.core.observations import Observation
from sweeper.core.points import DecodePoint
from sweeper.core.ports import Launcher
from sweeper.core.values import Cell, Hardware, Matrix, Unsupported
from sweeper.core.verdicts import Cause, Finding, Verdict
from sweeper.diagnosis.matcher import LogMatcher
from sweeper.diagnosis.signature import Signature, load_signatures
from sweeper.engines import registry
from sweeper.gpuwindows import judged_again
from sweeper.probes.text import Prompt, prompts_for
from sweeper.store.record import RunRecord, TrialRecord
from sweeper.trial import Measured, Tools

if TYPE_CHECKING:
    from sweeper.core.geometry import Geometry

READ_BYTES = 1 << 20
TEXTS = 4
"""Fixed texts scored per trial: seconds on a GPU, and enough tokens to tell a wrong kernel from rounding."""


def build(
    matrix: Matrix,
    launcher: str | None,
    signature_dirs: Sequence[Path],
    clock: SystemClock,
    say: Callable[[str], None],
) -> Tools:
    """Everything a trial of this sweep needs."""
    signatures = load_signatures(signature_dirs)
    launchers = _Launchers(launcher, say, matrix.policy.deadlines.pull_s)
    return Tools(
        clock=clock,
        engine=registry.get,
        launcher=launchers.of,
        matcher=lambda cell: LogMatcher(signatures, engine=_dialect(cell)),
        diagnose=lambda log, engine, code: diagnose_log(log, engine, code, signatures),
        measure=_measure,
        meter=_meter,
        machine=_machine,
        prompts=_prompts,
        numbers=_numbers,
        text=_text,
        wait_gpus_free=_gpu_waiter(),
        precheck=precheck,
        lacking=lacking_gpus,
        preflight=make_preflight(matrix, say),
    )


class _Launchers:
    """One adapter per kind, made when first needed."""

    def __init__(self, default: str | None, say: Callable[[str], None], pull_s: float) -> None:
        self._default, self._say, self._pull_s = default, say, pull_s
        self._made: dict[str, Launcher] = {}

    def of(self, cell: Cell) -> Launcher:
        """The launcher of a cell; see `launchers.registry.name_for`."""
        from sweeper.launchers import registry as launchers

        kind = launchers.name_for(cell, self._default)
        if kind not in self._made:
            self._made[kind] = launchers.make(kind, say=self._say, pull_s=self._pull_s)
        return self._made[kind]


def _prompts(cell: Cell) -> tuple[Prompt, ...]:
    """A canary with random weights has nothing to say: its golden vectors are checked instead."""
    try:
        made = json.loads((Path(cell.model) / "sweeper_canary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return prompts_for(cell.model)
    return () if made.get("weights") == "seed" else prompts_for(cell.model)


def _numbers(cell: Cell, base_url: str, model: str) -> seen.CanaryChecked | None:
    from sweeper.canary.golden import find

    if find(Path(cell.model)) is None:
        return None
    return replace(check_canary(base_url, model, Path(cell.model)), where="golden")


def _text(cell: Cell, base_url: str, model: str) -> seen.TextScored | None:
    """Golden vectors, where a checkpoint has them, say more than a comparison of cells can."""
    from sweeper.accuracy.presets import natural_texts
    from sweeper.canary.golden import find
    from sweeper.probes.textscores import score_text

    if find(Path(cell.model)) is not None:
        return None
    scores = score_text(base_url, model, natural_texts()[:TEXTS], timeout_s=60.0)
    return seen.TextScored(scores=scores) if scores.nll is not None else None


def _dialect(cell: Cell) -> str | None:
    """The engine whose log lines to expect; a command template may start anything."""
    return None if cell.engine == "command" else cell.engine


def diagnose_log(
    log: Path, engine: str, exit_code: int | None, signatures: Sequence[Signature]
) -> tuple[seen.Diagnosed, EffectiveConfig | None]:
    """Read a log from its first byte. `exit_code` None: we stopped the server, or it still runs."""
    matcher = LogMatcher(tuple(signatures), engine=None if engine == "command" else engine)
    complete = True
    try:
        with open(log, "rb") as file:
            while data := file.read(READ_BYTES):
                matcher.feed(data)
    except OSError:
        complete = False
    result = matcher.finish(exited=exit_code is not None, exit_code=exit_code)
    diagnosed = seen.Diagnosed(
        verdict=result.verdict,
        cause=result.cause,
        also=tuple(Cause(id=item.id, means=item.means, line_no=item.first_line_no) for item in result.also),
        lines=result.lines,
        complete=complete and result.complete,
    )
    return diagnosed, result.effective


def _measure(
    base_url: str, model: str, workload: Any, *, metrics_path: str | None, seed: int, meter: Any, tokenizer: Path
) -> Measured:
    """`tokenizer`: the model's folder, of use where it holds one."""
    from sweeper.probes.load.measure import LoadOptions, measure
    from sweeper.probes.load.retokenise import local_tokenizer

    options = LoadOptions(tokenizer=local_tokenizer(tokenizer))
    return measure(base_url, model, workload, metrics_path=metrics_path, seed=seed, meter=meter, options=options)


def _meter(gpus: tuple[str, ...], *, preset: str, own_pids: Any, strangers: Sequence[int]) -> Any:
    from sweeper.probes.machine import open_meter

    return open_meter(gpus, hz=100.0 if preset == "energy-phases" else 20.0, own_pids=own_pids, strangers=strangers)


def _machine(cell: Cell, gpus: tuple[str, ...]) -> seen.MachineBefore:
    from sweeper.probes.machine import cpu_state, page_cache, running_pids

    folder = Path(cell.model)
    weights = folder if folder.is_dir() and not cell.url else None
    return seen.MachineBefore(cpu=cpu_state(), page_cache=page_cache(weights), gpu_pids=running_pids(gpus))


def _gpu_waiter() -> Callable[[tuple[str, ...], float], tuple[str, ...]]:
    """Waits until GPUs hold no more than they did before the sweep: a driver's own reserve is nobody's leftover."""
    from sweeper.probes.gpu_free import in_use, wait_gpus_free

    idle = in_use(visible_gpus())
    return lambda gpus, deadline_s: wait_gpus_free(gpus, deadline_s, idle=idle)


def visible_gpus() -> tuple[str, ...]:
    """UUIDs of the GPUs that NVML lists; empty without a driver."""
    from sweeper.probes.host import gpu_ids

    return gpu_ids()


def hardware(matrix: Matrix) -> Hardware:
    """The machine that rules are checked against: the one the matrix names."""
    return matrix.hardware


def geometry_of(model: str) -> Geometry | None:
    """A model's geometry: from its folder, else from the catalogue; None where neither knows it."""
    from sweeper.checkpoint import model_geometry

    return model_geometry(model)


def precheck(cell: Cell) -> seen.LaunchProblem | None:
    """What is wrong with the cell's checkpoint on this disk, seen before anything is started; None: nothing."""
    from sweeper.checkpoint import model_problem

    problem = None if cell.url else model_problem(cell.model)
    if problem is None:
        return None
    cause = "model-not-found" if "does not exist" in problem else "checkpoint-corrupt"
    return seen.LaunchProblem(cause_id=cause, message=problem, hint="Check `model:` in the matrix, or fetch it again.")


_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvmap", "/dev/kfd")
"""Of NVIDIA's driver, of WSL2, of Jetson, of AMD: where one of them is, there is a GPU, whatever NVML says."""


def lacking_gpus(cell: Cell, hardware: Hardware, gpus: tuple[str, ...]) -> str | None:
    """Why the cell cannot have the GPUs that it needs; None: it can, or that is not certain.

    Without any GPU that we see, only a matrix that says how many it is meant for is refused: an engine may run on CPUs.
    """
    plan = registry.get(cell.engine).plan(cell)
    if isinstance(plan, Unsupported) or plan.url or hardware.count == 0 or len(gpus) >= plan.gpus:
        return None
    needed = f"needs {plan.gpus} GPU{'' if plan.gpus == 1 else 's'}"
    if gpus:
        return f"{needed}, and this sweep has {len(gpus)}: {', '.join(gpus)}"
    if hardware.count is None or any(Path(name).exists() for name in _DEVICES):
        return None
    return None if plan.image and _docker_has_gpus() else f"{needed}, and this machine has none"


@cache
def _docker_has_gpus() -> bool:
    """Also for an engine on another machine, of which nothing is known."""
    from sweeper.launchers.docker_client import address
    from sweeper.launchers.docker_host import docker_facts

    return not address().startswith("unix://") or docker_facts().gpu is not None


def host_facts() -> dict[str, Any]:
    """What the record says about this machine."""
    from sweeper.launchers.docker_host import docker_facts
    from sweeper.probes.host import host_facts as read

    return read(docker_facts())


def clean_run(run_id: str) -> str:
    """Remove what a crashed sweep of this run left behind; one sentence about it."""
    from sweeper.launchers.cleanup import clean

    return clean(run_id)


def compare_requested(cell: Cell, verdict: Verdict) -> tuple[Finding, ...]:
    """Requested against effective; nothing where the log proves nothing."""
    if verdict.effective is None:
        return ()
    from sweeper.engines.compare import compare_requested as compare

    return compare(cell, verdict.effective)


def enricher(record: RunRecord) -> Callable[[Cell, DecodePoint], tuple[str, ...]]:
    """Sentences that need more than one record: share of the speed of light, idle GPUs, what speculation did."""
    from sweeper.insights import enricher as make

    return make(record)


def rediagnose(record: RunRecord, trial: TrialRecord, cell: Cell, dirs: Iterable[Path]) -> list[Observation]:
    """The trial's observations, with log and GPU traces read again where they are still there."""
    folder = record.run.path / "trials" / trial.trial
    observed = judged_again(folder, trial.observed)
    log = folder / "server.log"
    if not log.exists():
        return observed
    exited = next((o for o in trial.observed if isinstance(o, seen.ServerExited) and not o.by_us), None)
    diagnosed, effective = diagnose_log(log, cell.engine, exited.code if exited else None, load_signatures(tuple(dirs)))
    if diagnosed.cause:
        diagnosed = replace(diagnosed, cause=replace(diagnosed.cause, log=f"trials/{trial.trial}/server.log"))
    kept = [o for o in observed if not isinstance(o, seen.Diagnosed | seen.EffectiveSeen)]
    more = [seen.EffectiveSeen(effective=effective)] if effective else []
    return [*kept, diagnosed, *more]
