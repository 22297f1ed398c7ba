#!/usr/bin/env bash
# Shows the failure "$cause" (phase $phase) on a small checkpoint with the same geometry; no weights are needed.
#
#   PYTHON=/path/to/environment/bin/python ./reproduce.sh     an environment that holds the engine
#   IMAGE=name:tag ./reproduce.sh                             another image, where the report is about a container
#
# Exit: 0 the failure was seen, 1 it was not, 3 something is missing.
set -uo pipefail
cd "$$(dirname "$$0")"

PYTHON="$${PYTHON:-python3}"
IMAGE="$${IMAGE:-"$$(printf %s $image)"}"
PORT="$${PORT:-18273}"
HOST=127.0.0.1
NAME="sweeper-reproduce-$$$$"
SERVER=""
LOG=work/server.log

read -r -d '' EXPECTED <<'LITERALS'
$literals
LITERALS

seen() { # every literal on one line of the log
    [ -n "$$EXPECTED" ] || return 1
    local found literal
    found="$$(cat "$$LOG" 2>/dev/null)"
    while IFS= read -r literal; do
        found="$$(grep -F -- "$$literal" <<<"$$found")" || return 1
    done <<<"$$EXPECTED"
    printf '%s\n' "$$found" | head -n 3
}

finish() {
    [ -n "$$SERVER" ] || return
    $stop
    for _ in $$(seq 10); do
        kill -0 "$$SERVER" 2>/dev/null || return
        sleep 1
    done
    # A vLLM whose engine process died may not end by SIGTERM.
    kill -KILL -- "-$$SERVER" 2>/dev/null
    wait "$$SERVER" 2>/dev/null
}
trap finish EXIT

command -v $needs >/dev/null || { echo "missing: $needs"; exit 3; }
mkdir -p work
if [ ! -f work/canary/config.json ]; then
    $build || { echo "the canary could not be built (torch and transformers 5 are needed)"; exit 3; }
fi

$environment
set -m
$start >"$$LOG" 2>&1 &
SERVER=$$!
set +m

for _ in $$(seq $wait); do
    if seen; then
        echo "reproduced: $cause"
        exit 0
    fi
    if ! kill -0 "$$SERVER" 2>/dev/null; then
        wait "$$SERVER"
        code=$$?
        SERVER=""
        if seen || [ -z "$$EXPECTED" ]; then
            echo "reproduced: $cause (exit code $$code)"
            exit 0
        fi
        echo "different: the server ended with code $$code for another reason; the log is $$LOG"
        tail -n 15 "$$LOG"
        exit 1
    fi
    if $is_up; then
        curl -s --max-time 120 "http://127.0.0.1:$$PORT/v1/completions" -H 'Content-Type: application/json' \
            -d '{"model": "$model", "prompt": "1 2 3 4 5", "max_tokens": 32, "temperature": 0}'
        echo
        sleep 2
        if seen; then
            echo "reproduced: $cause"
            exit 0
        fi
        echo "not seen: the server is up and answered; wrong numbers or text are judged by: sweeper reproduce"
        exit 1
    fi
    sleep 1
done
echo "no result after $wait s; the log is $$LOG"
tail -n 15 "$$LOG"
exit 1
