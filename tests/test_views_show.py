"""`show` in two columns that never run into one another."""

from __future__ import annotations

from sweeper import views


def shown(requested: dict[str, str], effective: dict[str, str]) -> str:
    return views.show_text(
        {"requested": requested, "effective": effective, "facts": {"moe_backend_ran": True}}, "effective"
    )


def test_every_name_is_apart_from_its_value() -> None:
    said = shown({"draft MoE backend": "auto", "TP": "2"}, {"draft MoE backend": "marlin", "TP": "2"})
    assert [line.split() for line in said.splitlines()] == [
        ["draft", "MoE", "backend", "asked", "auto,", "ran", "marlin"],
        ["TP", "2"],
    ]


def test_none_is_how_an_engine_says_that_16_bit_weights_are_not_quantised() -> None:
    assert "asked" not in shown({"quantization": "bf16"}, {"quantization": "none"})
    assert "asked nvfp4, ran none" in shown({"quantization": "nvfp4"}, {"quantization": "none"})
