#!/usr/bin/env bash
# Builds sweeper-vllm-cpu:0.32.0. Idempotent; FORCE=1 builds anew.
#   BASE         base image; default: sweeper-debian:local, made by .ci/debian-base.sh where it is missing
#   IMAGE        name of the image
#   WHEELS       folder with wheels to prefer (a CPU build of torch); default: pip's own find-links, where it is a folder
#   TORCH_INDEX  package index that offers torch 2.13.0+cpu; default: SWEEPER_TORCH_INDEX
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
image=${IMAGE:-sweeper-vllm-cpu:0.32.0}
base=${BASE:-sweeper-debian:local}
say() { printf 'vllm-cpu: %s\n' "$*" >&2; }

if [ -z "${FORCE:-}" ] && docker image inspect "$image" >/dev/null 2>&1; then
    say "$image is there"
    exit 0
fi
if [ "$base" = sweeper-debian:local ]; then bash "$here/../../.ci/debian-base.sh"; fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$here/Dockerfile" "$here/install.sh" "$here/requirements.txt" "$context/"
mkdir "$context/wheels"
wheels=${WHEELS:-$(python3 -m pip config get global.find-links 2>/dev/null || echo "${PIP_FIND_LINKS:-}")}
for folder in $wheels "$here/wheels"; do
    if [ -d "$folder" ]; then
        find "$folder" -maxdepth 1 -name 'torch-*+cpu-*.whl' -exec ln -f {} "$context/wheels/" \; 2>/dev/null \
            || find "$folder" -maxdepth 1 -name 'torch-*+cpu-*.whl' -exec cp {} "$context/wheels/" \;
    fi
done
say "building $image on $base (log follows)"
docker build --build-arg "BASE=$base" --build-arg "TORCH_INDEX=${TORCH_INDEX:-${SWEEPER_TORCH_INDEX:-}}" -t "$image" "$context" >&2
say "built $image ($(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.1f GB", $1 / 1e9}'))"
