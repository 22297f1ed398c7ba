"""What leaves the machine carries no secret, and loses nothing else."""

from __future__ import annotations

import pytest

from sweeper.core.redact import redact, redact_env

WORD = "abcDEF123456" * 3


@pytest.mark.parametrize(
    "text",
    [
        f"hf_{WORD}",
        f"Authorization: Bearer {WORD}",
        f"{{'authorization': 'Basic {WORD}'}}",
        f"--api-key {WORD}",
        f"--hf-token={WORD}",
        f"api_key='{WORD}'",
        f"'api_key': ['{WORD}']",
        f"HF_TOKEN={WORD}",
        f"AWS_SECRET_ACCESS_KEY={WORD}",
        f"https://user:{WORD}@host.example/path",
        f"https://host.example/x?token={WORD}&a=1",
        f"sk-proj-{WORD}",
        f"password: {WORD}",
        f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----",
    ],
)
def test_a_secret_is_masked(text: str) -> None:
    assert WORD not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "max_num_batched_tokens=8192, api_key=None, prompt_tokens: 12",
        "KeyError: 'model.layers.0.mlp.experts.w13_weight'",
        "Maximum concurrency for 2,048 tokens per request: 2740.80x",
        "GPU KV cache size: 5,613,152 tokens",
        "Token indices sequence length is longer than the maximum",
        "see https://pytorch.org/docs/stable/distributed.html#shutdown",
        "eos_token_id=151645, pad_token: '<|endoftext|>'",
        "KeyError: tokenizer",
    ],
)
def test_ordinary_log_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_environment_values_go_by_the_name() -> None:
    env = {
        "HF_TOKEN": "x1",
        "MY_PASSWORD": "p",
        "VLLM_USE_V1": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO": f"hf_{WORD}",
    }
    masked = redact_env(env)
    assert masked == {
        "HF_TOKEN": "***",
        "MY_PASSWORD": "***",
        "VLLM_USE_V1": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO": "***",
    }
