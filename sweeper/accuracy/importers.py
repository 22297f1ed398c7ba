"""Results of other harnesses: lm-evaluation-harness (results and per-sample files) and LiveBench.

lm-eval: `results_*.json` holds `results: {task: {"METRIC,FILTER": x}}` and `n-samples: {task: {"effective": n}}`;
`samples_TASK_*.jsonl` holds for each filter of the task a line per question, with `doc_id`, `filter` and the metric. A
task with several filters (gsm8k: strict-match and flexible-extract) is read by its first one. LiveBench: one judgement
a line with `question_id`, `model`, `score` (0..1). Format of lm-eval: lm_eval/evaluator.py, read 2026-11-21.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sweeper.accuracy.result import AccuracyResult, Item, of_items, of_json
from sweeper.core.errors import BadFile
from sweeper.jsonfile import parse_object, read_text

METRICS = ("exact_match", "acc", "pass@1", "pass_at_1", "acc_norm", "prompt_level_strict_acc", "math_verify", "score")


def import_file(path: Path) -> list[AccuracyResult]:
    """One result per task (lm-eval), per model (LiveBench) or per line (our own). Raises BadFile for anything else."""
    text = read_text(path)
    rows = _lines(text)
    if rows is None:
        content = parse_object(path, text)
        return [of_json(path, content)] if "preset" in content else _lm_eval(path, content)
    if all("preset" in row for row in rows):
        return [of_json(path, row) for row in rows]
    if all("question_id" in row and "score" in row for row in rows):
        return _livebench(path, rows)
    if all("doc_id" in row for row in rows):
        return [_lm_eval_samples(path, rows)]
    raise BadFile(str(path), "neither lm-eval samples (doc_id) nor LiveBench judgements (question_id, score)")


def _lines(text: str) -> list[dict[str, Any]] | None:
    """The objects of a JSONL file; None when the text is something else."""
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    if not rows or not all(isinstance(row, dict) for row in rows) or "results" in rows[0]:
        return None
    return rows


def _lm_eval(path: Path, content: dict[str, Any]) -> list[AccuracyResult]:
    results = content.get("results")
    if not isinstance(results, dict):
        raise BadFile(str(path), "no `results` object: not an lm-eval result", key="results")
    config = _object(content.get("config"))
    model = str(content.get("model_name") or config.get("model_args") or "")
    found = []
    for task, metrics in results.items():
        share, told = _metric(_object(metrics))
        counts = _object(_object(content.get("n-samples")).get(task))
        n = counts.get("effective") or counts.get("original")
        if share is None or not n:
            continue
        if not 0 <= share <= 1:
            raise BadFile(str(path), f"{share} is not in 0..1", key=f"results.{task}.{told}")
        if not isinstance(n, int) or n < 1:
            raise BadFile(str(path), f"{n!r} is no number of questions", key=f"n-samples.{task}")
        found.append(
            AccuracyResult(
                preset=f"lm-eval:{task}", model=model, source=path.name, n=n, right=share * n,
                note=_filters(told, [key for key in metrics if "_stderr" not in key]),
            )
        )  # fmt: skip
    if not found:
        raise BadFile(str(path), f"no task with n-samples and one of {', '.join(METRICS)}", key="results")
    return found


def _filters(told: str, keys: list[str]) -> str | None:
    """Which filter was taken, where the metric has several."""
    name, _, taken = told.partition(",")
    others = [key.partition(",")[2] for key in keys if key.partition(",")[0] == name and key != told]
    return f"filter {taken}; also in the file: {', '.join(others)}" if others else None


def _lm_eval_samples(path: Path, rows: list[dict[str, Any]]) -> AccuracyResult:
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for row in rows))
    items = []
    for number, row in enumerate(rows, 1):
        if str(row.get("filter", "none")) != filters[0]:
            continue
        score, _ = _metric(row)
        if score is None or not 0 <= score <= 1:
            raise BadFile(str(path), f"none of {', '.join(METRICS)} in 0..1", line=number)
        items.append(Item(id=str(row["doc_id"]), score=score))
    _must_differ(path, "doc_id", items)
    task = path.stem.removeprefix("samples_").rsplit("_20", 1)[0]
    note = f"filter {filters[0]}; also in the file: {', '.join(filters[1:])}" if filters[1:] else None
    return of_items(f"lm-eval:{task}", "", path.name, items).model_copy(update={"note": note})


def _must_differ(path: Path, key: str, items: list[Item]) -> None:
    """A question that counts twice makes an interval too narrow."""
    name, count = Counter(item.id for item in items).most_common(1)[0]
    if count > 1:
        raise BadFile(str(path), f"question {name} stands there {count} times", key=key)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _livebench(path: Path, rows: list[dict[str, Any]]) -> list[AccuracyResult]:
    models: dict[str, list[Item]] = {}
    for number, row in enumerate(rows, 1):
        score = row["score"]
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise BadFile(str(path), f"score {score!r} is not in 0..1", line=number, key="score")
        models.setdefault(str(row.get("model") or ""), []).append(Item(id=str(row["question_id"]), score=float(score)))
    for items in models.values():
        _must_differ(path, "question_id", items)
    return [of_items("livebench", model, path.name, items) for model, items in models.items()]


def _metric(row: dict[str, Any]) -> tuple[float | None, str]:
    """The first known metric and its key, with or without lm-eval's filter suffix (`acc,none`)."""
    for name in METRICS:
        for key, value in row.items():
            if key.split(",")[0] == name and isinstance(value, int | float):
                return float(value), key
    return None, ""
