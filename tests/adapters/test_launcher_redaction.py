"""What a launch record and a pasted line show of secrets."""

from __future__ import annotations

from sweeper.launchers.common import redact, redact_argv, shell_argv


def test_a_pasted_line_takes_secrets_from_the_shell() -> None:
    argv = redact_argv(["serve", "--api-key", "hunter2", "--hf-token=abc", "--max-num-batched-tokens", "8192"])
    assert argv == ("serve", "--api-key", "$SECRET", "--hf-token=$SECRET", "--max-num-batched-tokens", "8192")
    assert shell_argv(argv).endswith("--hf-token=$SECRET --max-num-batched-tokens 8192")


def test_a_switch_that_is_named_like_a_secret_keeps_its_value() -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN": "abc"}
    assert redact(env) == {**env, "HF_TOKEN": "$HF_TOKEN"}


def test_a_secret_in_the_value_of_another_variable_is_masked() -> None:
    assert redact({"PIP_INDEX": "https://me:pw@host/simple"}) == {"PIP_INDEX": "https://***@host/simple"}
