"""Which of an author's own arguments a canary is started with: those that choose kernels, not those about the model.

A reasoning parser looks for tokens that a canary's tokenizer lacks, a LoRA adapter has the real model's shapes,
`--load-format dummy` would replace the weights whose golden answers are known. Each would fail a cell that works.
"""

from __future__ import annotations

from collections.abc import Sequence

_PARSERS = (
    "--reasoning-parser", "--reasoning-parser-plugin", "--enable-reasoning", "--tool-call-parser",
    "--tool-parser-plugin", "--enable-auto-tool-choice", "--structured-outputs-config", "--reasoning-config",
)  # fmt: skip
_TOKENIZER = (
    "--tokenizer", "--tokenizer-path", "--tokenizer-mode", "--tokenizer-revision", "--skip-tokenizer-init",
    "--chat-template", "--chat-template-content-format", "--trust-request-chat-template",
)  # fmt: skip
_CHECKPOINT = (
    "--load-format", "--model-loader-extra-config", "--config-format", "--hf-config-path", "--revision",
    "--code-revision", "--generation-config", "--override-generation-config", "--lora-modules", "--lora-paths",
    "--max-model-len", "--context-length", "--max-logprobs",
)  # fmt: skip
_MEDIA = (
    "--limit-mm-per-prompt", "--mm-processor-kwargs", "--mm-processor-cache-gb", "--mm-processor-cache-type",
    "--mm-encoder-tp-mode", "--mm-encoder-attn-backend", "--mm-encoder-only", "--media-io-kwargs",
    "--interleave-mm-strings", "--skip-mm-profiling", "--video-pruning-rate", "--language-model-only",
    "--enable-multimodal", "--mm-attention-backend", "--allowed-local-media-path",
)  # fmt: skip
ABOUT_THE_MODEL = frozenset((*_PARSERS, *_TOKENIZER, *_CHECKPOINT, *_MEDIA))

DRAFTS = (
    "--speculative-config", "--spec-config", "-sc", "--speculative-model", "--speculative-draft-model-path",
    "--speculative-draft-model",
)  # fmt: skip
"""Arguments that name a draft model: it fits the real weights only."""


def about_kernels(args: Sequence[str]) -> tuple[str, ...]:
    """`args` without the options above and their values (`--flag value...` and `--flag=value`)."""
    kept: list[str] = []
    skipping = False
    for arg in args:
        if arg.startswith("-"):
            skipping = arg.partition("=")[0].replace("_", "-") in ABOUT_THE_MODEL
        if not skipping:
            kept.append(arg)
    return tuple(kept)
