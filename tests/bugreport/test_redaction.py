"""What a report hides, and what it leaves alone."""

from __future__ import annotations

import pytest

from sweeper.bugreport.redaction import Private, Redactor, leaks, private_of

PRIVATE = Private(
    users=frozenset({"brunhilde", "max", "root"}),
    hosts=frozenset({"forge-07", "forge-07.smith.example"}),
    homes=frozenset({"/srv/people/brunhilde"}),
    secrets=frozenset({"correct-horse-battery"}),
    words=frozenset({"Nibelung"}),
)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("loading /home/brunhilde/models/x", "loading /home/<user>/models/x"),
        ("/Users/somebody/venv/bin/python", "/Users/<user>/venv/bin/python"),
        (r"C:\Users\Somebody\venv", r"C:\Users\<user>\venv"),
        ("/srv/people/brunhilde/venv/bin", "~/venv/bin"),
        ("user=brunhilde started it", "user=<user> started it"),
        ("/scratch/brunhilde_models/m", "/scratch/<user>_models/m"),
        ("BRUNHILDE", "<user>"),
        ("node forge-07: rank 0", "node <host>: rank 0"),
        ("forge-07.smith.example", "<host>"),
        ("registry.firm.internal/vllm:1", "<host>/vllm:1"),
        ("key correct-horse-battery used", "key *** used"),
        ("project nibelung", "project ***"),
        ("tcp://10.1.2.3:29500", "tcp://<address>:29500"),
        ("init_method=tcp://192.168.7.4:1", "init_method=tcp://<address>:1"),
        ("peer 172.20.0.3 is gone", "peer <address> is gone"),
        ("http://93.184.216.34/x", "http://<address>/x"),
        ("listening on 93.184.216.34:8000", "listening on <address>:8000"),
        ("fe80::1ff:fe23:4567:890a%eth2", "<address>"),
        ("mail brunhilde@smith.example now", "mail <e-mail> now"),
        ("GPU-12345678-1234-1234-1234-123456789abc", "<id>"),
        ("someone@forge:", "<user>@<host>:"),
    ],
)
def test_private_text_is_masked(text: str, hidden: str) -> None:
    assert Redactor(PRIVATE).text(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "--max-num-seqs 8 max_model_len=1024",
        "the root cause",
        "http://127.0.0.1:8000/health",
        "Uvicorn running on http://0.0.0.0:8000",
        "nvidia-curand-cu12==10.3.9.90",
        "CUDA version 12.8.1.1",
        'File "/opt/env/lib/python3.11/site-packages/vllm/x.py", line 3',
        "INFO 11-21 05:53:28 [core.py:1510] rank 0",
        "@torch.compile",
    ],
)
def test_what_a_kernel_engineer_needs_is_left_alone(text: str) -> None:
    redactor = Redactor(PRIVATE)
    assert redactor.text(text) == text
    assert not redactor.counts


def test_replacements_are_counted_by_kind() -> None:
    redactor = Redactor(PRIVATE)
    redactor.text("brunhilde brunhilde on forge-07, HF_TOKEN=hf_abcdefgh12345678 and 10.0.0.1")
    assert redactor.counts == {"user names": 2, "host names": 1, "secrets": 1, "network addresses": 1}


def test_values_of_secret_variables_are_hidden_wherever_they_stand() -> None:
    private = private_of([{"MY_API_KEY": "f00f-f00f-f00f"}], user=None, hosts=(), home=None)
    assert Redactor(private).text("sent f00f-f00f-f00f to the server") == "sent *** to the server"


def test_data_is_hidden_by_the_name_of_its_key() -> None:
    hidden = Redactor(Private()).data({"HF_TOKEN": "not-shaped-like-one", "n": 3, "list": ["/home/zoe/x"]})
    assert hidden == {"HF_TOKEN": "***", "n": 3, "list": ["/home/<user>/x"]}


def test_a_name_seen_in_a_home_path_is_hidden_in_running_text_too() -> None:
    private = Private().and_of(["/home/wotan/models"])
    assert Redactor(private).text("started by wotan") == "started by <user>"


def test_what_is_left_over_is_found() -> None:
    assert leaks(PRIVATE, "issue.md", "by Brunhilde")
    assert leaks(PRIVATE, "issue.md", "key=correct-horse-battery")
    assert not leaks(PRIVATE, "issue.md", Redactor(PRIVATE).text("by Brunhilde with correct-horse-battery"))
