"""The Docker engine as a fact about this machine."""

from __future__ import annotations

import shutil

from sweeper.core.errors import LaunchFailed
from sweeper.core.host import Docker
from sweeper.launchers.docker import gpus_through_cdi
from sweeper.launchers.docker_client import FAILURES, address, connect

_INSTALL = "install it (Debian, Ubuntu: sudo apt-get install docker.io), or run natively: --launcher process"


def docker_facts() -> Docker:
    """Never raises: an engine that does not answer is a fact as well."""
    where = address()
    installed = shutil.which("docker") is not None or shutil.which("dockerd") is not None
    try:
        client = connect(timeout_s=10.0)
    except LaunchFailed as why:
        problem = why.message if installed else f"Docker is not installed (nothing answers at {where})"
        mend = why.hint if installed else _INSTALL
        return Docker(address=where, running=False, installed=installed, problem=problem, mend=mend)
    try:
        info = client.info()
        runtime = "runtime" if "nvidia" in (info.get("Runtimes") or {}) else None
        return Docker(
            address=where,
            running=True,
            version=info.get("ServerVersion"),
            storage=info.get("Driver"),
            root=info.get("DockerRootDir"),
            gpu=runtime or ("cdi" if gpus_through_cdi(client) else None),
        )
    except FAILURES as err:
        return Docker(address=where, running=False, problem=f"Docker at {where} does not answer properly: {err}")
    finally:
        client.close()
