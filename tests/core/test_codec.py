"""Every observation survives the way to the record and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sweeper.core import codec
from sweeper.core import observations as seen
from sweeper.core.effective import BootPhase, EffectiveConfig
from sweeper.core.errors import RecordUnusable
from sweeper.core.verdicts import Cause, Phase

VALUES = [
    seen.NotPlanned(reason="r"),
    seen.LaunchProblem(cause_id="image-not-found", message="m"),
    seen.ReadySeen(after_s=1.5, answers=2),
    seen.FatalLine(id="x", phase=Phase.READY, line_no=3, line="l", after_s=0.1),
    seen.OutputSample(prompt="p", text="\x00ü", tokens=None, finish_reason=None, problem=None),
    seen.Diagnosed(verdict="fatal", cause=Cause(id="x", means="m", line_no=1), also=(Cause(id="y", means="n"),)),
    seen.EffectiveSeen(effective=EffectiveConfig(engine="vllm", boot=(BootPhase(name="load", seconds=None),))),
    seen.CanaryChecked(verdict="right", figures={"nll": 1.0}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_equal(value: Any) -> None:
    assert codec.load(type(value), json.loads(json.dumps(codec.dump(value)))) == value


def test_keys_of_other_versions_are_ignored() -> None:
    assert codec.load(seen.ReadySeen, {"after_s": 1, "answers": 2, "new": 3}) == seen.ReadySeen(after_s=1, answers=2)


def test_a_record_that_does_not_fit_names_the_field() -> None:
    with pytest.raises(RecordUnusable, match="answers"):
        codec.load(seen.ReadySeen, {"after_s": 1})


def test_every_observation_has_a_name_in_the_record() -> None:
    assert set(seen.NAMES) == set(seen.KINDS.values()) == set(seen.Observation.__args__)  # type: ignore[attr-defined]
