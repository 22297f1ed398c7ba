"""What leaves the machine carries no secret, and loses nothing else."""

from __future__ import annotations

import pytest

from sweeper.core.redact import is_secret, is_secret_flag, redact, redact_env, redact_known

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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "hf_abc"),
        ("REGISTRY_AUTH", "dXNlcg=="),
        ("DB_PASSWD", "1234"),
        ("NGC_API_KEY", "x"),
        ("AWS_ACCESS_KEY_ID", "y"),
        ("SESSION_COOKIE", "z"),
    ],
)
def test_a_variable_is_a_secret_by_its_name(name: str, value: str) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "4096"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("HF_TOKEN", "$HF_TOKEN"),
        ("HF_TOKEN", ""),
    ],
)
def test_a_switch_a_count_and_a_reference_are_no_secrets(name: str, value: str) -> None:
    assert not is_secret(name, value)


@pytest.mark.parametrize("flag", ["--api-key", "--hf-token", "--auth_token", "-token", "--db-password"])
def test_a_flag_of_a_secret(flag: str) -> None:
    assert is_secret_flag(flag, "hunter2")


@pytest.mark.parametrize("flag", ["--max-num-batched-tokens", "--tokenizer", "--num-speculative-tokens", "--key", "x"])
def test_a_flag_of_no_secret(flag: str) -> None:
    assert not is_secret_flag(flag, "8192")


def test_a_command_keeps_its_json_and_loses_known_tokens() -> None:
    words = '{"method": "mtp", "num_speculative_tokens": 3}'
    assert redact_known(words) == words
    assert redact_known("--download https://me:pw@host/x") == "--download https://***@host/x"
    assert "hf_" not in redact_known("hf_abcdefgh12345678")
