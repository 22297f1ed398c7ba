"""Results of other harnesses: lm-evaluation-harness (results and per-sample files) and LiveBench.

lm-eval: `results_*.json` holds `results: {task: {"acc,none": x}}` and `n-samples: {task: {"effective": n}}`;
`samples_TASK_*.jsonl` one question a line with `doc_id` and the metric. LiveBench: one judgement a line with
`question_id`, `model`, `score` (0..1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeper.accuracy.result import AccuracyResult, Item, of_items
from sweeper.core.errors import BadFile

METRICS = ("exact_match", "acc", "pass@1", "acc_norm", "prompt_level_strict_acc", "score")


def import_file(path: Path) -> list[AccuracyResult]:
    """One result per task (lm-eval) or per model (LiveBench). Raises BadFile for anything else."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(str(path), f"cannot be read: {error}") from None
    rows = _lines(text)
    if rows is None:
        return _lm_eval(path, _object(path, text))
    if all("question_id" in row and "score" in row for row in rows):
        return _livebench(path, rows)
    if all("doc_id" in row for row in rows):
        return [_lm_eval_samples(path, rows)]
    raise BadFile(str(path), "neither lm-eval samples (doc_id) nor LiveBench judgements (question_id, score)")


def _lines(text: str) -> list[dict[str, Any]] | None:
    """The objects of a JSONL file; None when the text is something else."""
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        return None
    if not rows or not all(isinstance(row, dict) for row in rows) or "results" in rows[0]:
        return None
    return rows


def _object(path: Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise BadFile(str(path), f"not JSON: {error}", line=line) from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise BadFile(str(path), "no `results` object: not an lm-eval result", key="results")
    return content


def _lm_eval(path: Path, content: dict[str, Any]) -> list[AccuracyResult]:
    model = str(content.get("model_name") or (content.get("config") or {}).get("model_args") or "")
    found = []
    for task, metrics in content["results"].items():
        share = _metric(metrics)
        counts = (content.get("n-samples") or {}).get(task) or {}
        n = counts.get("effective") or counts.get("original")
        if share is None or not n:
            continue
        found.append(
            AccuracyResult(preset=f"lm-eval:{task}", model=model, source=path.name, n=int(n), right=share * int(n))
        )
    if not found:
        raise BadFile(str(path), f"no task with n-samples and one of {', '.join(METRICS)}", key="results")
    return found


def _lm_eval_samples(path: Path, rows: list[dict[str, Any]]) -> AccuracyResult:
    items = []
    for number, row in enumerate(rows, 1):
        score = _metric(row)
        if score is None or not 0 <= score <= 1:
            raise BadFile(str(path), f"none of {', '.join(METRICS)} in 0..1", line=number)
        items.append(Item(id=str(row["doc_id"]), score=score))
    task = path.stem.removeprefix("samples_").rsplit("_20", 1)[0]
    return of_items(f"lm-eval:{task}", "", path.name, items)


def _livebench(path: Path, rows: list[dict[str, Any]]) -> list[AccuracyResult]:
    models: dict[str, list[Item]] = {}
    for number, row in enumerate(rows, 1):
        score = row["score"]
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise BadFile(str(path), f"score {score!r} is not in 0..1", line=number, key="score")
        models.setdefault(str(row.get("model") or ""), []).append(Item(id=str(row["question_id"]), score=float(score)))
    return [of_items("livebench", model, path.name, items) for model, items in models.items()]


def _metric(row: dict[str, Any]) -> float | None:
    """The first known metric, with or without lm-eval's filter suffix (`acc,none`)."""
    for name in METRICS:
        for key, value in row.items():
            if key.split(",")[0] == name and isinstance(value, int | float):
                return float(value)
    return None
