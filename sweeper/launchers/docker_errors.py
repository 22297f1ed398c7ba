"""What Docker says when it refuses, as a cause of the failure taxonomy and a command that mends it.

Matched on the engine's own wording (moby 20.10 to 28, NVIDIA container toolkit 1.13 to 1.17), first row that fits. The
wording is kept in the message, so a wrong match costs a wrong hint and nothing else.
"""

from __future__ import annotations

import re

from sweeper.core.errors import LaunchFailed

GPU_TOOLKIT = (
    "install the NVIDIA container toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker && "
    "sudo systemctl restart docker"
)
CDI = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml; look with: nvidia-ctk cdi list"

_ROWS: tuple[tuple[str, str, str], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        "disk-full",
        "docker system df; free some space, then: docker image prune",
    ),
    (
        r"unresolvable CDI device|CDI device injection failed|failed to inject CDI|CDI.*not registered",
        "cdi-device-unresolvable",
        CDI,
    ),
    (
        r"could not select device driver|unknown or invalid runtime name: nvidia|unknown runtime.*nvidia"
        r"|nvidia-container-(cli|runtime).*(not found|no such file)|libnvidia-ml\.so.*cannot open",
        "docker-no-gpu-runtime",
        GPU_TOOLKIT,
    ),
    (
        r"driver/library version mismatch",
        "driver-library-mismatch",
        "restart the machine, or reload the nvidia modules",
    ),
    (
        r"nvidia-container-cli.*(unknown device|device error|invalid device)",
        "invalid-device-ordinal",
        "name GPUs that exist; look with: nvidia-smi -L",
    ),
    (r"nvidia-container-cli", "docker-no-gpu-runtime", "nvidia-smi; then: " + GPU_TOOLKIT),
    (
        r"port is already allocated|address already in use|ports are not available",
        "port-in-use",
        "look with: docker ps; ss -ltnp",
    ),
    (
        r"manifest( for \S+)? (unknown|not found)|No such image|name unknown|repository does not exist"
        r"|invalid reference format|not found: manifest|no matching manifest",
        "image-not-found",
        "check the name and tag of `image:`, or build it from dockerfiles/; a private image needs: docker login",
    ),
    (
        r"unauthorized|access (to the resource is )?denied|authentication required|\b40[13] Forbidden|toomanyrequests",
        "image-pull-unauthorized",
        "docker login REGISTRY, then try: docker pull IMAGE",
    ),
    (
        r"no such host|dial tcp|i/o timeout|TLS handshake|connection re(fused|set)|x509|proxyconnect"
        r"|network is unreachable",
        "image-not-found",
        "the image is not on this machine and its registry cannot be reached; build it from dockerfiles/, "
        "or bring it with: docker load",
    ),
    (
        r"executable file not found|exec: .*(no such file|permission denied)|no command specified",
        "executable-missing",
        "the program is not in the image; look with: docker run --rm --entrypoint sh IMAGE -c 'ls'",
    ),
    (
        r"bind source path does not exist|invalid mount config|is not shared from the host",
        "mount-refused",
        "give a folder that exists and that Docker may see",
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), cause, hint) for pattern, cause, hint in _ROWS)


def refused(text: str, what: str, *, otherwise: str = "docker-refused") -> LaunchFailed:
    """`what` we tried (`pull IMAGE`), Docker's words, the cause. `otherwise`: cause for words that nobody has seen."""
    words = " ".join(text.split())
    for pattern, cause, hint in _COMPILED:
        if pattern.search(words):
            return LaunchFailed(cause, f"Docker could not {what}: {words}", hint=hint)
    return LaunchFailed(
        otherwise, f"Docker could not {what}: {words}", hint="look with: docker info; journalctl -u docker"
    )


def not_running(text: str, address: str) -> LaunchFailed:
    """No answer from the engine at all."""
    if "PermissionError" in text or "Permission denied" in text or "permission denied" in text:
        return LaunchFailed(
            "docker-not-running",
            f"this user may not talk to Docker at {address}",
            hint="sudo usermod -aG docker $USER, then log in again",
        )
    return LaunchFailed(
        "docker-not-running",
        f"no Docker engine answers at {address}",
        hint="sudo systemctl start docker (WSL2 without systemd: sudo service docker start); "
        "or run natively: --launcher process",
    )
