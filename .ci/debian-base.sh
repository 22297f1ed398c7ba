#!/usr/bin/env bash
# Makes the image `sweeper-debian:local` from Debian packages alone, for machines that reach no image registry.
# Any Debian image with Python 3.11 or newer serves as well: docker build --build-arg BASE=... dockerfiles/vllm-cpu
# Idempotent; FORCE=1 makes it anew. SUITE (bookworm) and IMAGE change what is made.
set -euo pipefail

image=${IMAGE:-sweeper-debian:local}
suite=${SUITE:-bookworm}
say() { printf 'debian-base: %s\n' "$*" >&2; }

if [ -z "${FORCE:-}" ] && docker image inspect "$image" >/dev/null 2>&1; then
    say "$image is there"
    exit 0
fi
command -v debootstrap >/dev/null || { say "no debootstrap; install it with: apt-get install debootstrap"; exit 1; }
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

say "bootstrapping Debian $suite"
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" \
    >"$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; exit 1; }
rm -f "$root.log"

# How this machine reaches its package index goes into the image: certificates, and pip's settings less those that
# point into this machine's own folders.
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi
{
    echo "[global]"
    echo "cert = /etc/ssl/certs/ca-certificates.crt"
    echo "disable-pip-version-check = true"
    for key in index-url trusted-host proxy timeout; do
        value=$(python3 -m pip config get "global.$key" 2>/dev/null) || continue
        case $value in *file:* | /*) ;; *) printf '%s = %s\n' "$key" "$value" ;; esac
    done
} >"$root/etc/pip.conf"
for file in /etc/apt/apt.conf.d/*proxy*; do
    if [ -f "$file" ]; then cp "$file" "$root/etc/apt/apt.conf.d/"; fi
done
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/usr/share/doc/* "$root"/usr/share/locale/*

tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$image" >/dev/null
docker run --rm "$image" python3 -c 'import sys; assert sys.version_info >= (3, 11), sys.version; print(sys.version.split()[0])' >/dev/null
say "made $image ($(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%d MB", $1 / 1e6}'))"
