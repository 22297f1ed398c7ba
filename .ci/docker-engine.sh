#!/usr/bin/env bash
# A Docker engine for the container tests: installs one where none is, starts it by hand where nothing else does.
# Idempotent. Ends 0 when `docker info` answers, 1 with the reason otherwise.
set -euo pipefail

say() { printf 'docker-engine: %s\n' "$*" >&2; }
answers() { docker info >/dev/null 2>&1; }

install_packages() {
    command -v dockerd >/dev/null && command -v docker >/dev/null && command -v debootstrap >/dev/null && return
    command -v apt-get >/dev/null || { say "no dockerd, and no apt-get to install it with"; exit 1; }
    [ "$(id -u)" = 0 ] || { say "no dockerd; install it with: sudo apt-get install docker.io debootstrap"; exit 1; }
    say "installing docker.io, debootstrap, iptables"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        docker.io debootstrap iptables ca-certificates >/dev/null
}

# start LOG [dockerd options]: 0 when it answers within 40 s
start() {
    local log=$1 pid
    shift
    setsid nohup dockerd "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 80); do
        answers && return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.5
    done
    kill "$pid" 2>/dev/null || true
    return 1
}

if answers; then
    say "running already: $(docker info --format '{{.ServerVersion}}, storage {{.Driver}}')"
    exit 0
fi
install_packages
if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
    systemctl start docker || true
fi
log=${DOCKERD_LOG:-/var/log/dockerd.log}
# A socket and a pid file left by a daemon that was killed keep a new one from starting.
if ! answers && [ -f /var/run/docker.pid ] && ! kill -0 "$(cat /var/run/docker.pid)" 2>/dev/null; then
    rm -f /var/run/docker.pid
fi
for driver in "" overlay2 vfs; do
    answers && break
    say "starting dockerd ${driver:+with storage driver $driver}"
    start "$log" ${driver:+--storage-driver "$driver"} || { say "that failed:"; tail -n 3 "$log" >&2; }
done
answers || { say "no Docker engine could be started; whole log: $log"; exit 1; }
say "running: $(docker info --format '{{.ServerVersion}}, storage {{.Driver}}')"
