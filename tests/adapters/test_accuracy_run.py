"""Presets against a canned server, generated code in its sandbox, results of other harnesses."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checking_server import Answer, served

from sweeper.accuracy import result as results
from sweeper.accuracy import sandbox
from sweeper.accuracy.importers import import_file
from sweeper.accuracy.presets import code_of, final_answer, load_preset, natural_texts, run_preset
from sweeper.accuracy.render import against, text_of
from sweeper.accuracy.sandbox import jail, run_python
from sweeper.core.errors import BadFile, EnvironmentNotReady, UsageError

QUESTIONS = {item["question"]: item["answer"] for item in load_preset("accuracy-40")["items"]}


def knows_all(route: str, body: dict[str, Any]) -> Answer:
    asked = body["messages"][0]["content"] if "messages" in body else body["prompt"]
    right = next(answer for question, answer in QUESTIONS.items() if question in asked)
    return 200, {"choices": [{"message": {"content": f"<think>hm, 7</think>Let me see.\n**Answer: {right}**"}}]}


def test_forty_questions_with_distinct_ids_and_a_checkable_answer() -> None:
    items = load_preset("accuracy-40")["items"]
    assert len({item["id"] for item in items}) == len({item["question"] for item in items}) == 40
    assert all(item["answer"] and item["kind"] in ("number", "text") for item in items)


def test_a_model_that_knows_everything_scores_forty_of_forty() -> None:
    with served(knows_all) as url:
        found = run_preset(url, None, "accuracy-40")
    assert (found.right, found.n) == (40, 40)
    bounds = found.to_json()["interval"]
    assert bounds["low"] == pytest.approx(0.912, abs=0.001)


def test_a_model_that_repeats_the_question_scores_next_to_nothing() -> None:
    with served(
        lambda route, body: (200, {"choices": [{"message": {"content": body["messages"][0]["content"]}}]})
    ) as url:
        found = run_preset(url, None, "accuracy-40")
    assert found.right <= 3


@pytest.mark.parametrize("chat", [True, False])
def test_a_short_context_is_asked_for_shorter_answers_over_the_route_it_has(chat: bool) -> None:
    asked: list[tuple[str, int]] = []

    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route == "/v1/chat/completions" and not chat:
            return 400, {"error": {"message": "default chat template is no longer allowed"}}
        asked.append((route, body["max_tokens"]))
        if body["max_tokens"] > 900:
            return 400, {"error": {"message": "'max_tokens' is too large: the maximum context length is 1024 tokens"}}
        status, content = knows_all(route, body)
        text = content["choices"][0]["message"]["content"]
        return status, content if chat else {"choices": [{"text": text}]}

    with served(answer) as url:
        found = run_preset(url, None, "accuracy-40")
    assert found.right == 40
    assert {route for route, _ in asked} == {"/v1/chat/completions" if chat else "/v1/completions"}
    assert [tokens for _, tokens in asked[:3]] == [2048, 1024, 512]
    assert len(asked) == 42
    assert "left 512 tokens for an answer, not 2048" in text_of(found)


def test_a_server_without_chat_is_asked_over_completions() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        if route == "/v1/chat/completions":
            return 400, {"error": "no chat template"}
        status, content = knows_all(route, body)
        return status, {"choices": [{"text": content["choices"][0]["message"]["content"]}]}

    with served(answer) as url:
        assert run_preset(url, "m", "accuracy-40").right == 40


def test_unanswered_questions_are_an_error_and_not_wrong_answers() -> None:
    with served(lambda route, body: (500, "busy")) as url, pytest.raises(EnvironmentNotReady, match="not answered"):
        run_preset(url, None, "accuracy-40")


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        run_preset("http://127.0.0.1:9", "m", "mmlu")
    assert "ppl-proxy" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Answer: 42", "42"),
        ("Answer: 1\nwait\n**Answer:** 42.", "42"),
        ("<think>Answer: 3</think>\nAnswer: `ab`", "ab"),
        ("It is\n\n42", "42"),
        ("  \n", None),
    ],
)
def test_the_last_answer_counts_and_thoughts_do_not(text: str, said: str | None) -> None:
    assert final_answer(text) == said


SOLUTIONS = {
    "add_digits": "def add_digits(n):\n    return sum(int(c) for c in str(abs(n)))",
    "leap_year": "def leap_year(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
}


def test_generated_code_passes_only_when_its_tests_do() -> None:
    def answer(route: str, body: dict[str, Any]) -> Answer:
        asked = body["messages"][0]["content"]
        code = next((code for name, code in SOLUTIONS.items() if f"def {name}(" in asked), "def nothing(): pass")
        return 200, {"choices": [{"message": {"content": f"Here:\n```python\n{code}\n```\nDone."}}]}

    with served(answer) as url:
        found = run_preset(url, None, "codegen-pass1")
    assert found.n == 20
    assert {item.id for item in found.items if item.score} == set(SOLUTIONS)


def test_a_bare_body_is_put_under_its_signature() -> None:
    assert code_of("    return 1", "def f():\n") == "def f():\n    return 1"
    assert code_of("```python\ndef f(): return 1\n```", "def f():\n") == "def f(): return 1\n"


def test_the_sandbox_ends_loops_memory_and_floods() -> None:
    assert run_python("print(1)").ok
    assert run_python("while True: pass", timeout_s=0.3).problem == "no end after 0.3 s"
    assert "MemoryError" in (run_python("x = bytearray(2 * 1024**3)").problem or "")
    assert not run_python("open('f', 'wb').write(bytes(8 * 1024**2))").ok
    assert "AssertionError" in (run_python("assert 1 == 2").problem or "")


@pytest.mark.skipif(jail().network, reason="no network namespaces for this user: unshare --net is refused")
def test_generated_code_has_no_network() -> None:
    with served(knows_all) as url:
        port = url.rsplit(":", 1)[1]
        ran = run_python(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)")
    assert ran.isolated
    assert not ran.ok


def test_generated_code_need_not_wait_for_a_child_that_lives_on() -> None:
    """It holds the error stream open."""
    began = time.monotonic()
    assert run_python("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(8)").ok
    assert time.monotonic() - began < 8


def in_the_sandbox() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return [line for line in found if "'answer', 'exec'" in line]


@pytest.mark.skipif(jail().files, reason="no process namespaces for this user")
@pytest.mark.parametrize("code", ["if os.fork() == 0:\n    os.setsid()\n    time.sleep(60)", "while True: os.fork()"])
def test_generated_code_leaves_no_process_behind(code: str) -> None:
    """A child in a session of its own is in no group that could be ended; a fork bomb is faster than any list."""
    run_python(f"import os, time\n{code}", timeout_s=0.5)
    until = time.monotonic() + 5
    while in_the_sandbox() and time.monotonic() < until:
        time.sleep(0.02)
    assert in_the_sandbox() == []


@pytest.mark.skipif(jail().files, reason="no mount namespaces for this user")
def test_generated_code_writes_no_file_but_a_few_of_its_own(tmp_path: Path) -> None:
    there = tmp_path / "kept"
    there.write_text("mine")
    for place in (there, Path(__file__).with_name("written.txt")):
        assert not run_python(f"open({str(place)!r}, 'w').write('x')").ok
        assert not Path(__file__).with_name("written.txt").exists()
    assert there.read_text() == "mine"
    assert run_python("open('own', 'w').write('x')\nassert open('own').read() == 'x'").ok
    full = run_python("for number in range(100):\n    open(f'f{number}', 'wb').write(bytes(1000000))")
    assert "No space left" in (full.problem or "")


def test_a_limit_that_is_already_lower_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "OPEN_FILES", 1 << 40)
    assert run_python("print(1)").ok


def test_the_environment_does_not_reach_generated_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_TEST_TOKEN", "secret")
    assert run_python("import os\nassert 'SWEEPER_TEST_TOKEN' not in os.environ").ok


def test_natural_texts_are_texts() -> None:
    assert len(natural_texts()) >= 8
    assert min(len(text.split()) for text in natural_texts()) > 60


def test_perplexity_is_scored_and_compared_with_the_reference() -> None:
    def answer(value: float) -> Any:
        rows = [None, {"5": {"logprob": value}}, {"9": {"logprob": value}}]
        return lambda route, body: (200, {"choices": [{"prompt_logprobs": rows}]})

    with served(answer(-0.50)) as url:
        reference = run_preset(url, None, "ppl-proxy")
    with served(answer(-0.51)) as url:
        cell = run_preset(url, None, "ppl-proxy")
    assert against(reference, cell).score == pytest.approx(99.0, abs=0.01)


def test_lm_eval_results_and_samples_are_read(tmp_path: Path) -> None:
    totals = tmp_path / "results_2026.json"
    content = {
        "results": {
            "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": 0.1}
        },
        "n-samples": {"gsm8k": {"original": 100, "effective": 100}},
        "model_name": "m",
    }
    totals.write_text(json.dumps(content))
    (found,) = import_file(totals)
    assert (found.preset, found.model, found.n, found.right) == ("lm-eval:gsm8k", "m", 100, 50)
    samples = tmp_path / "samples_gsm8k_2026-01-01T00-00-00.jsonl"
    samples.write_text("\n".join(json.dumps({"doc_id": i, "exact_match": float(i % 2)}) for i in range(100)))
    (each,) = import_file(samples)
    assert (each.preset, each.n, each.right) == ("lm-eval:gsm8k", 100, 50)


def test_livebench_judgements_are_read_per_model_and_compared_in_pairs(tmp_path: Path) -> None:
    rows = [{"question_id": f"q{i}", "model": "bf16", "score": int(i < 278)} for i in range(1000)]
    rows += [{"question_id": f"q{i}", "model": "nvfp4", "score": int(3 <= i < 283)} for i in range(1000)]
    path = tmp_path / "ground_truth_judgment.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    bf16, nvfp4 = import_file(path)
    found = against(bf16, nvfp4)
    assert found.difference is not None
    assert found.difference.test == "exact McNemar"
    assert found.difference.finding == "no difference shown"
    assert "no difference shown" in found.to_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ('{"a": 1}', "doc_id"),
        ('{"results": {}}', "no task"),
        ('{"question_id": 1, "score": 7}\n{"question_id": 2, "score": 1}', "not in 0..1"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_reason(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BadFile, match=words):
        import_file(path)


def test_results_survive_the_file_and_other_presets_are_not_compared(tmp_path: Path) -> None:
    with served(knows_all) as url:
        found = run_preset(url, None, "accuracy-40")
    path = tmp_path / "a.json"
    path.write_text(json.dumps(found.to_json()))
    assert results.read_any(path) == found
    with pytest.raises(UsageError, match="different question sets"):
        against(found, found.model_copy(update={"preset": "livebench"}))


def lm_eval(share: Any = 0.5, n: Any = 10) -> dict[str, Any]:
    return {"results": {"t": {"acc,none": share}}, "n-samples": {"t": {"effective": n}}}


BROKEN_FILES: dict[str, Any] = {
    "a share above one": lm_eval(5.0),
    "a negative share": lm_eval(-0.1),
    "a share that is not a number": lm_eval(float("nan")),
    "a count that is text": lm_eval(n="x"),
    "a negative count": lm_eval(n=-3),
    "no table of counts": {**lm_eval(), "n-samples": [1]},
    "counts that are a list": {**lm_eval(), "n-samples": {"t": [5]}},
    "a task that is a list": {**lm_eval(), "results": {"t": []}},
    "more right than asked": {"preset": "x", "model": "m", "source": "s", "n": 1, "right": 5},
    "an infinite NLL": {"preset": "x", "model": "m", "source": "s", "n": 0, "right": 0, "nll": float("inf")},
    "nothing": None,
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_result_file_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(BROKEN_FILES[name]))
    with pytest.raises(BadFile, match=r"results\.json"):
        import_file(path)


def test_a_model_configuration_that_is_text_costs_only_the_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**lm_eval(), "config": "local"}))
    assert [(item.n, item.right, item.model) for item in import_file(path)] == [(10, 5.0, "")]


def test_a_task_with_two_filters_counts_each_question_once(tmp_path: Path) -> None:
    """gsm8k logs every question under strict-match and again under flexible-extract."""
    rows = [
        {"doc_id": doc, "filter": name, "exact_match": float(name == "flexible-extract" or doc % 2)}
        for name in ("strict-match", "flexible-extract")
        for doc in range(10)
    ]
    samples, totals = tmp_path / "samples_gsm8k_2026-01-01.jsonl", tmp_path / "results.json"
    samples.write_text("\n".join(map(json.dumps, rows)))
    metrics = {
        "exact_match,strict-match": 0.5,
        "exact_match_stderr,strict-match": 0.1,
        "exact_match,flexible-extract": 1,
    }
    totals.write_text(json.dumps({"results": {"gsm8k": metrics}, "n-samples": {"gsm8k": {"original": 10}}}))
    for path in (samples, totals):
        (found,) = import_file(path)
        assert (found.preset, found.n, found.right) == ("lm-eval:gsm8k", 10, 5.0)
        assert found.note == "filter strict-match; also in the file: flexible-extract"


def test_a_question_that_stands_there_twice_is_no_interval(tmp_path: Path) -> None:
    path = tmp_path / "judgement.jsonl"
    path.write_text("\n".join(json.dumps({"question_id": "q", "model": "m", "score": s}) for s in (0, 1)))
    with pytest.raises(BadFile, match="question q stands there 2 times"):
        import_file(path)
