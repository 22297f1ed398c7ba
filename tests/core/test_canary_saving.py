"""What a preflight saved, in words and figures."""

from __future__ import annotations

from sweeper.core.canaries import Refusal, Saving


def saving(**changes: object) -> Saving:
    given = {"launches": 6, "seconds": 250.0, "cells": 10, "failed": 6, "ruled_out": 3, "start_s": 600.0, **changes}
    return Saving(**given)  # type: ignore[arg-type]


def test_the_saving_is_starts_that_were_not_made_less_the_canarys_own() -> None:
    found = saving()
    assert found.saved_s == 3600.0
    assert found.to_json()["net_s"] == 3350.0
    assert "up to 3600 s saved, +3350 s net." in found.to_text()


def test_a_preflight_that_cost_more_than_it_saved_says_from_where_it_pays() -> None:
    text = saving(start_s=36.0).to_text()
    assert "up to 216 s saved, -34 s net; this preflight pays where a start takes more than 42 s." in text


def test_without_a_start_over_the_real_weights_the_saving_is_unknown() -> None:
    found = saving(start_s=None)
    assert found.saved_s is None
    assert (found.to_json()["saved_s"], found.to_json()["net_s"]) == (None, None)
    assert found.to_text().endswith("6 canary launches took 250 s.")


def test_where_nothing_failed_nothing_is_claimed() -> None:
    text = saving(failed=0, ruled_out=0, launches=1).to_text()
    assert text.startswith("preflight: 0 of 10 cells failed on the canary")
    assert text.endswith("1 canary launch took 250 s.")


def test_a_list_of_names_covers_every_other_name() -> None:
    known = Refusal(reason="", line_no=1, line="", but=("triton", "auto"))
    assert known.covers("marlin")
    assert not known.covers("triton")
