"""Tokens of answers that the server did not count one by one: by its counter of all, else here from a tokenizer.json.

Both are flagged, never exact.

The whole answer is encoded once, and each token belongs to the event that brought its last character. Encoding every
event for itself would count pieces of words, and more tokens than the model made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from sweeper.core.errors import UsageError
from sweeper.core.windows import trace_of
from sweeper.core.windows_server import CounterSample, tokens_per_chunk
from sweeper.probes.load.sizing import Count


@cache
def load_tokenizer(path: Path) -> Any:
    """A tokenizer.json, or the one in a folder. UsageError when it is not there or the package is not installed."""
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(
            "a tokenizer was named and the package `tokenizers` is missing", hint="pip install tokenizers"
        ) from None
    if not file.is_file():
        raise UsageError(f"no tokenizer at {file}", hint="Name a tokenizer.json, or a model folder that holds one.")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises plain Exception for a file that it cannot read
        raise UsageError(f"{file} is not a tokenizer: {error}") from None


def local_tokenizer(path: Path) -> Path | None:
    """`path`, a model's folder, if it holds a tokenizer that can be used here. A file is its weights: never read."""
    if not path.is_dir():
        return None
    try:
        load_tokenizer(path)
    except UsageError:
        return None
    return path


def tokenizer_count(path: Path) -> Count:
    """Prompt tokens by this tokenizer, special ones included."""
    tokenizer = load_tokenizer(path)
    return lambda texts: [len(one.ids) for one in tokenizer.encode_batch(list(texts))]


def counted(
    records: list[dict[str, Any]], samples: Sequence[CounterSample], live: int, tokenizer: Path | None
) -> list[dict[str, Any]]:
    """Records of a run with tokens for chunks, where one of the two can tell. `live`: most streams at once."""
    share = tokens_per_chunk(samples, [trace_of(record) for record in records], live)
    if share is not None:
        return [r | {"source": "server_counter", "final_tokens": share * r["totals"][-1]} for r in records]
    return records if tokenizer is None else [retokenised(record, tokenizer) for record in records]


def retokenised(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A record of a stream that was not counted, with tokens for chunks and `source` tokenizer.

    Events that complete no token are left out. A record without texts, or with counts of its own, comes back as it was.
    """
    texts: Sequence[str] | None = record.get("texts")
    if record["source"] != "chunks" or not texts or len(texts) != len(record["stamps"]):
        return dict(record)
    encoded = load_tokenizer(path).encode("".join(texts), add_special_tokens=False)
    ends = sorted(end for _, end in encoded.offsets)
    totals = [bisect_right(ends, heard) for heard in accumulate(map(len, texts))]
    kept = [i for i, total in enumerate(totals) if total > (totals[i - 1] if i else 0)]
    if not kept:
        return dict(record)
    stamps = [record["stamps"][i] for i in kept]
    return {**record, "stamps": stamps, "totals": [totals[i] for i in kept], "source": "tokenizer"}
