"""What the preflight of a recorded run cost and saved."""

from __future__ import annotations

from statistics import median

from sweeper.core.canaries import BAD, Saving
from sweeper.core.observations import CanaryChecked, ReadySeen
from sweeper.store.record import RunRecord, TrialRecord


def saving(record: RunRecord) -> Saving | None:
    """None where no canary was launched."""
    if not record.canaries:
        return None
    last = [trials[-1] for cell_id in record.cells if (trials := record.of_cell(cell_id))]
    verdicts = [found for found in map(_verdict, last) if found]
    starts = [
        item.after_s for trial in record.trials.values() for item in trial.observed if isinstance(item, ReadySeen)
    ]
    return Saving(
        launches=len(record.canaries),
        seconds=sum(launch.seconds for launch in record.canaries),
        cells=len(record.cells),
        failed=len(verdicts),
        ruled_out=sum(found.figures.get("launched") is False for found in verdicts),
        start_s=median(starts) if starts else None,
    )


def _verdict(trial: TrialRecord) -> CanaryChecked | None:
    """The canary's verdict where it ended the trial."""
    found = [o for o in trial.observed if isinstance(o, CanaryChecked) and o.where == "preflight" and o.verdict in BAD]
    return found[-1] if found else None
