"""Any OpenAI-compatible server that an argv template starts.

Placeholders: {model} {served_model} {port} {host} {tp} {pp} {dp} {ep} {world} {quantization} {moe_backend}
{attention_backend} {linear_backend} {max_model_len} {spec_method} {spec_tokens} {spec_model} {python}.
Other braces stay, so JSON arguments need no escaping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sweeper.core.effective import EffectiveConfig
from sweeper.core.values import Cell, LaunchPlan, Unsupported
from sweeper.engines import common
from sweeper.engines.facts import read_facts

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_LEFT_FOR_THE_LAUNCHER = frozenset({"port", "host"})


class CommandEngine:
    """The cell's `command` with its placeholders filled."""

    name = "command"

    def plan(self, cell: Cell) -> LaunchPlan | Unsupported:
        if cell.url:
            return common.attached(cell, "/metrics")
        if not cell.command:
            return Unsupported(reason="the command engine needs `command`: an argv list such as [my-server, {model}]")
        values = _values(cell)
        unsaid = _unsaid(cell)
        if unsaid:
            return Unsupported(reason=unsaid)
        argv: list[str] = []
        for word in (*cell.command, *cell.extra_args):
            missing = [name for name in _PLACEHOLDER.findall(word) if name in values and values[name] is None]
            if missing:
                return Unsupported(reason=f"`command` asks for {{{missing[0]}}} and the cell does not set it")
            argv.append(_fill(word, values))
        inside = common.in_container(cell)
        gpus = common.gpus_needed(cell)
        return LaunchPlan(
            argv=tuple(argv),
            env=common.environment(cell, {}),
            served_model=common.served_name(cell.model),
            image=cell.image if inside else None,
            entrypoint=() if inside else None,
            mounts=common.mounts(cell),
            gpus=gpus,
            ipc_host=inside and gpus > 0,
        )

    def effective(self, lines: Iterable[str]) -> EffectiveConfig:
        return read_facts(lines)


def _values(cell: Cell) -> dict[str, str | None]:
    p, spec = cell.parallelism, cell.speculative
    return {
        "model": common.model_argument(cell),
        "served_model": common.served_name(cell.model),
        "python": cell.python or "python3",
        "tp": str(p.tp),
        "pp": str(p.pp),
        "dp": str(p.dp),
        "ep": str(p.ep),
        "world": str(p.world_size),
        "quantization": cell.quantization_flag or cell.quantization,
        "moe_backend": cell.moe_backend,
        "attention_backend": cell.attention_backend,
        "linear_backend": cell.linear_backend,
        "max_model_len": str(cell.max_model_len) if cell.max_model_len is not None else None,
        "spec_method": spec.method if spec else None,
        "spec_tokens": str(spec.tokens) if spec else None,
        "spec_model": common.draft_argument(cell, spec.model) if spec and spec.model else None,
    }


def _unsaid(cell: Cell) -> str | None:
    """An axis value that the template has no place for would be swept in name only."""
    words = " ".join((*cell.command, *cell.extra_args))
    p = cell.parallelism
    wanted = (
        (cell.moe_backend != "auto", "moe_backend"),
        (cell.attention_backend is not None, "attention_backend"),
        (cell.linear_backend is not None, "linear_backend"),
        (cell.speculative is not None, "spec_tokens"),
        (p.tp > 1, "tp"),
        (p.pp > 1, "pp"),
        (p.dp > 1, "dp"),
        (p.ep > 1, "ep"),
    )
    for is_set, name in wanted:
        covered = f"{{{name}}}" in words or (name in ("tp", "pp", "dp") and "{world}" in words)
        if is_set and not covered:
            return f"the cell sets {name} but `command` has no {{{name}}}: the server would never hear of it"
    return None


def _fill(word: str, values: dict[str, str | None]) -> str:
    def one(found: re.Match[str]) -> str:
        name = found.group(1)
        value = None if name in _LEFT_FOR_THE_LAUNCHER else values.get(name)
        return found.group(0) if value is None else value

    return _PLACEHOLDER.sub(one, word)
