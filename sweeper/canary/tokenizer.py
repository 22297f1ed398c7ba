"""A small byte-level BPE tokenizer, trained here on the canary's own text; every id of the vocabulary decodes.

Digits are single tokens, so that sums are learned and not looked up. Any text round-trips, because all 256 bytes are
in the alphabet. Needs the `tokenizers` package.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweeper.canary import corpus

SPECIALS = (corpus.EOT, corpus.USER, corpus.ASSISTANT, corpus.END)
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
    "merges.txt", "added_tokens.json", "tokenizer.model",
)  # fmt: skip
"""What a tokenizer of a model folder may consist of."""
TRAINED_SIZE = 1024
"""Ids learned from text; a larger vocabulary is filled with words that only a model can write."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
    "{{ message['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@lru_cache(maxsize=1)
def _trained() -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d| ?[^\s\d]+|\s+(?!\S)|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TRAINED_SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(corpus.tokenizer_text(), trainer)
    return str(tokenizer.to_str())


def build(vocab_size: int) -> Any:
    """`tokenizers.Tokenizer` with exactly `vocab_size` ids (at least `TRAINED_SIZE`). Raises ValueError below that.

    Ids beyond the trained ones decode to " w1024", " w1025"...; no text encodes to them.
    """
    from tokenizers import Tokenizer

    if vocab_size < TRAINED_SIZE:
        raise ValueError(f"vocabulary of {vocab_size} ids: the tokenizer needs at least {TRAINED_SIZE}")
    state = json.loads(_trained())
    vocab = state["model"]["vocab"]
    for token_id in range(len(vocab), vocab_size):
        vocab[f"\u0120w{token_id}"] = token_id
    return Tokenizer.from_str(json.dumps(state))


def save(folder: Path, vocab_size: int, max_length: int) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and `special_tokens_map.json`."""
    build(vocab_size).save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": corpus.EOT,
        "pad_token": corpus.EOT,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {
            str(i): {"content": token, "special": True, "lstrip": False, "rstrip": False, "normalized": False,
                     "single_word": False}
            for i, token in enumerate(SPECIALS)
        },
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", {"eos_token": corpus.EOT, "pad_token": corpus.EOT})
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
