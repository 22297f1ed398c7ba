"""`reproduce.sh`: builds the canary, starts the same server on it, and says within minutes whether the failure is seen.

Needs bash, curl and either an environment with the engine (PYTHON=...) or Docker (IMAGE=...); no sweeper, no weights.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib import resources
from string import Template

from sweeper.bugreport import builder
from sweeper.bugreport.recipe import Recipe, canary_arguments
from sweeper.core.values import LaunchPlan
from sweeper.core.verdicts import Cause

_PLACEHOLDER = re.compile(r"\{(port|host)\}|@PYTHON@")
_NAMES = {"port": "$PORT", "host": "$HOST"}
WAIT_S = 300


def words_for_shell(words: Sequence[str]) -> str:
    """argv as shell text; `{port}`, `{host}` and `@PYTHON@` become variables of the script."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    if not _PLACEHOLDER.search(word):
        return shlex.quote(word)
    escaped = re.sub(r'([\\"$`])', r"\\\1", word)
    return '"' + _PLACEHOLDER.sub(lambda m: _NAMES.get(m[1] or "", "$PYTHON"), escaped) + '"'


def script(plan: LaunchPlan, recipe: Recipe, cause: Cause | None, literals: Sequence[str], phase: str) -> str:
    """The script's text. `literals`: what the failing line must hold, all on one line; empty: any early end counts."""
    template = Template(resources.files("sweeper.data").joinpath("templates/reproduce.sh").read_text("utf-8"))
    in_docker = plan.image is not None
    return template.substitute(
        cause=cause.id if cause else "none",
        phase=phase,
        image=shlex.quote(plan.image or ""),
        build=_build(recipe, in_docker),
        environment=_environment(plan, in_docker),
        start=_docker(plan) if in_docker else _native(plan),
        stop='docker rm -f "$NAME" >/dev/null 2>&1 || true'
        if in_docker
        else 'kill -TERM -- "-$SERVER" 2>/dev/null || true',
        is_up=f'curl -sf -o /dev/null --max-time 5 "http://127.0.0.1:$PORT{plan.health_path}"',
        model=plan.served_model,
        literals="\n".join(text.strip() for text in literals if "\n" not in text),
        wait=WAIT_S,
        needs="docker" if in_docker else '"$PYTHON"',
    )


def _build(recipe: Recipe, in_docker: bool) -> str:
    if recipe.kind == "speaking":
        # Its shape is enough for a crash; its text needs the trained weights, which `sweeper canary unpack` has.
        recipe = Recipe(kind="like")
    arguments = canary_arguments(recipe, "canary-config.json", "work/canary")
    if not in_docker:
        return f'"$PYTHON" {builder.NAME} {words_for_shell(arguments)}'
    return (
        'docker run --rm -u "$(id -u):$(id -g)" -e HOME=/tmp -e USER=canary -v "$PWD":/report -w /report '
        f'--entrypoint python3 "$IMAGE" {builder.NAME} {words_for_shell(arguments)}'
    )


def _environment(plan: LaunchPlan, in_docker: bool) -> str:
    if in_docker:
        return ""
    return "\n".join(f"export {name}={_word(value)}" for name, value in plan.env.items())


def _native(plan: LaunchPlan) -> str:
    return words_for_shell([word.replace("./canary", "work/canary") for word in plan.argv])


def _docker(plan: LaunchPlan) -> str:
    parts = ['docker run --rm --name "$NAME" -p "127.0.0.1:$PORT:$INSIDE"']
    parts += ["--gpus all"] if plan.gpus else []
    parts += ["--ipc=host"] if plan.ipc_host else []
    parts += [f"--shm-size {plan.shm_bytes}"] if plan.shm_bytes and not plan.ipc_host else []
    parts += [f'-v "$PWD/work/canary":{mount.target}:ro' for mount in plan.mounts]
    parts += [f"-e {_word(f'{name}={value}')}" for name, value in plan.env.items()]
    if plan.entrypoint:
        parts.append(f"--entrypoint {shlex.quote(plan.entrypoint[0])}")
    inside = words_for_shell([*(plan.entrypoint or ())[1:], *plan.argv])
    inside = inside.replace('"$PORT"', '"$INSIDE"').replace('"$HOST"', "0.0.0.0")
    return " ".join([*parts, '"$IMAGE"', inside]).replace("$INSIDE", str(plan.container_port))
