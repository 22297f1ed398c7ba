"""`check_server` against servers that are healthy, broken, limited, or gone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checking_server import VOCAB, Answer, golden, served, vllm

from sweeper.canary.golden import save
from sweeper.checking import CheckOptions, _limits, as_json, check_server
from sweeper.core.errors import EnvironmentNotReady, UsageError
from sweeper.core.numerics import Check

Route = Callable[[str, dict[str, Any]], Answer]


def check(tmp_path: Path, answer: Route, *, text: bool = False, **options: Any) -> Check:
    save(golden(text=text), tmp_path / "golden.json.gz")
    with served(answer) as url:
        return check_server(url, None, tmp_path / "golden.json.gz", CheckOptions(**options))


def healthy(route: str, body: dict[str, Any]) -> Answer:
    return vllm(body) if route == "/v1/completions" else (404, {"error": "no such route"})


def changed(edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> Route:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        status, content = healthy(route, body)
        if status == 200:
            edit(body, content["choices"][0])
        return status, content

    return answer


def test_a_healthy_server_is_right_at_every_batch_size(tmp_path: Path) -> None:
    found = check(tmp_path, healthy)
    assert found.verdict == "right"
    assert not found.unchecked
    assert set(found.groups) == {f"{kind} batch {n}" for kind in ("prefill", "decode") for n in (1, 4, 8)}
    assert found.generations >= 74


def test_what_only_activations_in_4_bit_excuse_is_wrong_on_a_server_that_has_none(tmp_path: Path) -> None:
    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        for row in (choice.get("prompt_logprobs") or [])[1:]:
            for entry in row.values():
                entry["logprob"] -= 0.05

    def found(quant: str, **options: Any) -> Check:
        save(golden(quant), tmp_path / "golden.json.gz")
        with served(changed(edit)) as url:
            return check_server(url, None, tmp_path / "golden.json.gz", CheckOptions(**options))

    unknown = found("nvfp4")
    assert unknown.verdict == "right"
    assert unknown.weight_only is not None
    assert unknown.weight_only.verdict == "degraded"
    assert as_json(unknown)["weight_only"] == {"verdict": "degraded", "reasons": [*unknown.weight_only.reasons]}
    known = found("nvfp4", weight_only=True)
    assert (known.verdict, known.reasons) == ("degraded", unknown.weight_only.reasons)
    assert found("nvfp4-w4a16").verdict == "degraded"
    assert found("fp8").weight_only is None


def test_a_nan_literal_in_json_is_garbage(tmp_path: Path) -> None:
    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        choice["logprobs"]["token_logprobs"][-1] = float("nan")

    found = check(tmp_path, changed(edit))
    assert found.verdict == "garbage"
    assert found.nan


def test_a_null_where_a_generated_tokens_logprob_belongs_is_garbage(tmp_path: Path) -> None:
    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        choice["logprobs"]["token_logprobs"][0] = None

    assert check(tmp_path, changed(edit)).verdict == "garbage"


def test_a_nan_that_strict_json_turned_into_http_500_is_garbage(tmp_path: Path) -> None:
    words = {"error": {"message": "Out of range float values are not JSON compliant: nan"}}
    found = check(tmp_path, lambda route, body: (500, words))
    assert found.verdict == "garbage"
    assert found.nan


def test_a_server_that_fails_on_full_batches_is_not_right(tmp_path: Path) -> None:
    seen = iter(range(10_000))

    def answer(route: str, body: dict[str, Any]) -> Answer:
        return (500, "Internal Server Error") if next(seen) % 11 == 10 else healthy(route, body)

    found = check(tmp_path, answer)
    assert found.verdict == "degraded"
    assert "HTTP 500" in found.reasons[0]


def test_a_server_that_scores_no_prompts_is_checked_in_decode_and_says_so(tmp_path: Path) -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if body.get("prompt_logprobs") is not None or body.get("echo"):
            return 400, {"error": "not supported"}
        return healthy(route, body)

    found = check(tmp_path, answer)
    assert found.verdict == "right"
    assert any("prefill" in gap for gap in found.unchecked)
    assert all(name.startswith("decode") for name in found.groups)


def test_a_server_without_logprobs_is_judged_by_its_text_and_says_what_is_missing(tmp_path: Path) -> None:
    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        choice.pop("logprobs", None)
        choice.pop("prompt_logprobs", None)

    found = check(tmp_path, changed(edit), text=True)
    assert found.verdict == "right"
    assert not found.groups
    assert any("prefill" in gap for gap in found.unchecked)
    assert any("log-prob" in gap for gap in found.unchecked)


def test_drawn_weights_on_a_server_without_logprobs_are_unchecked(tmp_path: Path) -> None:
    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        choice.pop("logprobs", None)
        choice.pop("prompt_logprobs", None)

    found = check(tmp_path, changed(edit))
    assert found.verdict == "unchecked"


def test_collapsed_generations_are_counted(tmp_path: Path) -> None:
    seen = iter(range(10_000))

    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        if body["max_tokens"] > 20 and next(seen) % 25 == 0:
            count = len(choice["logprobs"]["tokens"])
            choice["logprobs"]["tokens"][2:] = ["token_id:5"] * (count - 2)

    found = check(tmp_path, changed(edit))
    assert found.verdict != "right"
    assert found.degenerate >= 3


def test_a_sampler_that_takes_another_token_than_the_best_is_not_right(tmp_path: Path) -> None:
    def edit(body: dict[str, Any], choice: dict[str, Any]) -> None:
        names = choice["logprobs"]["tokens"]
        choice["logprobs"]["tokens"] = [f"token_id:{(int(n[9:]) + 3) % VOCAB}" for n in names]

    found = check(tmp_path, changed(edit))
    assert found.verdict != "right"


def test_a_chat_only_server_is_checked_by_text(tmp_path: Path) -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route != "/v1/chat/completions":
            return 404, {"error": "no such route"}
        return 200, {"choices": [{"message": {"content": "Rain falls from clouds because drops grow heavy."}}]}

    with served(answer) as url:
        found = check_server(url, None, None, CheckOptions(generations=6))
    assert found.verdict == "right"
    assert found.generations == 6
    assert "no golden vectors" in found.unchecked[0]


def test_looping_text_without_golden_vectors_is_garbage(tmp_path: Path) -> None:
    with served(lambda route, body: (200, {"choices": [{"text": "!" * 48}]})) as url:
        assert check_server(url, None, None, CheckOptions(generations=6)).verdict == "garbage"


def test_a_model_that_is_not_served_is_named() -> None:
    unknown = {"error": {"message": "The model `other` does not exist."}}
    with served(lambda route, body: (404, unknown)) as url, pytest.raises(UsageError, match="serves fake, not other"):
        check_server(url, "other", None)


def test_a_server_that_answers_to_any_name_is_checked(tmp_path: Path) -> None:
    save(golden(), tmp_path / "golden.json.gz")
    with served(healthy) as url:
        assert check_server(url, "other", tmp_path / "golden.json.gz").verdict == "right"


def test_nobody_at_the_address_is_an_error_with_a_hint() -> None:
    with pytest.raises(EnvironmentNotReady) as caught:
        check_server("http://127.0.0.1:9", None, None)
    assert caught.value.hint


def test_the_json_object_has_the_documented_keys_and_is_strict_json(tmp_path: Path) -> None:
    found = as_json(check(tmp_path, healthy))
    assert {"schema", "verdict", "nll", "kl_topk", "argmax_agreement", "degenerate", "nan", "unchecked"} <= set(found)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("scores_prompts", [True, False])
def test_a_server_with_shorter_lists_is_compared_over_what_it_lists(tmp_path: Path, scores_prompts: bool) -> None:
    """vLLM with `--max-logprobs 1` refuses a request for more; others just answer with fewer."""

    def answer(route: str, body: dict[str, Any]) -> Answer:
        if max(body.get("prompt_logprobs") or 0, body.get("logprobs") or 0) > 1:
            return 400, {"error": {"message": "Requested logprobs of 3, which is greater than max allowed: 1"}}
        status, content = healthy(route, body)
        if status == 200 and not scores_prompts:
            content["choices"][0].pop("prompt_logprobs", None)
        return status, content

    found = check(tmp_path, answer)
    assert found.verdict == "right"
    assert "the server lists 1 candidates a token, golden 3" in found.unchecked
    assert {name.split()[0] for name in found.groups} == ({"prefill", "decode"} if scores_prompts else {"decode"})


def test_a_golden_file_of_a_model_with_more_tokens_is_named_as_such(tmp_path: Path) -> None:
    """Text would pass for right, and nothing would have been compared."""

    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route == "/v1/completions" and not isinstance(body["prompt"], str):
            return 400, {"error": {"message": "Token id 63 is out of vocabulary"}}
        return healthy(route, body)

    with pytest.raises(UsageError, match="does not know the golden prompts' tokens"):
        check(tmp_path, answer, text=True)


def test_a_golden_file_that_states_no_typical_kl_has_that_of_its_uncalibrated_checkpoint() -> None:
    """A healthy FP4 kernel over such a checkpoint is at 1.3e-3, over a calibrated one at 1e-4."""
    older = golden("nvfp4", text=True)
    stated = older.model_copy(update={"tolerance": older.tolerance.model_copy(update={"kl_typical": 1.3e-4})})
    assert _limits(older).kl_typical == pytest.approx(1.45e-3)
    assert _limits(stated).kl_typical == pytest.approx(1.3e-4)
    assert _limits(golden("nvfp4")).kl_typical is None
    assert _limits(stated, weight_only=True).kl_typical == pytest.approx(2e-5)
    assert _limits(golden("nvfp4"), weight_only=True).kl_typical is None
