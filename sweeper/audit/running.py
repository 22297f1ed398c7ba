"""A running container against its image, and what was injected into a container or a process."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweeper.audit import injected
from sweeper.audit.images import Chunks, Index, add_settings, created, docker_client
from sweeper.audit.injected import Finding
from sweeper.audit.kinds import ignored, of_the_system
from sweeper.audit.trees import Form, Tree, site_packages
from sweeper.core.errors import EnvironmentNotReady, UsageError

MOST_FILES = 2000
"""More files than that are changed by installing into the container; fetching each would take minutes."""
NOT_READ = "only its owner or root may read /proc of it"


@contextmanager
def open_container(name: str, image: str | None = None) -> Iterator[tuple[Tree, Tree, list[Finding]]]:
    """(image, container, findings): the files that differ by `docker diff` and those under mounts over code.

    `image`: another image to compare with. Raises UsageError for an unknown container, EnvironmentNotReady.
    """
    from docker.errors import DockerException, NotFound

    with docker_client() as client, tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as two:
        try:
            container = client.containers.get(name)
            base = image or container.attrs["Image"]
            config = container.attrs.get("Config") or {}
            mounts = injected.of_mounts(container.attrs.get("Mounts") or [])
            paths = _differing(container) + [finding.where.rsplit(" -> ", 1)[1] for finding in mounts]
            with created(base) as (source, pristine):
                old, new = Index(one), Index(two)
                for path in paths:
                    _fetch(pristine, path, old)
                    _fetch(container, path, new)
                label = image or (config.get("Image") or base)
                a = _tree(f"image:{label}", old, source.attrs.get("Config") or {})
                b = _tree(f"container:{name}", new, config)
                yield a, b, [*mounts, *_processes(container, b.environ)]
        except NotFound:
            raise UsageError(f"no container {name}", hint="Try: docker ps -a") from None
        except DockerException as error:
            raise EnvironmentNotReady(f"Docker refused to open {name}: {error}") from None


def _tree(name: str, index: Index, config: dict[str, Any]) -> Tree:
    return Tree(name=name, form=Form.IMAGE, environ=add_settings(index, config), entries=index.entries)


def _differing(container: Any) -> list[str]:
    """Files that were changed, added or deleted since the image, without folders that only hold such files."""
    paths = sorted(str(change["Path"]) for change in container.diff() or [])
    files = [path for path, after in zip(paths, [*paths[1:], ""], strict=True) if not after.startswith(path + "/")]
    wanted = [path for path in files if not ignored(path.lstrip("/")) and not of_the_system(path.lstrip("/"))]
    if len(wanted) > MOST_FILES:
        raise UsageError(
            f"{len(wanted)} files differ from the image, more than {MOST_FILES}",
            hint=f"Compare whole: docker export {container.name} > c.tar; sweeper audit image:... c.tar",
        )
    return wanted


def _fetch(container: Any, path: str, index: Index) -> None:
    """Add a file or all files of a folder; nothing when this side has none."""
    from docker.errors import NotFound

    try:
        chunks, _ = container.get_archive(path)
    except NotFound:
        return
    parent = path.rsplit("/", 1)[0].lstrip("/")
    with tarfile.open(fileobj=Chunks(chunks), mode="r|") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                index.add_file(f"{parent}/{member.name}".lstrip("/"), member.size, stream)


def _processes(container: Any, environ: Mapping[str, str]) -> list[Finding]:
    """What the container's processes have in memory; the variables of its configuration are found by comparison."""
    if container.status != "running":
        return []
    table = container.top(ps_args="-eo pid,comm")
    pids = [int(row[0]) for row in table.get("Processes") or []]
    found: dict[str, Finding] = {}
    for pid in pids:
        try:
            lines, own = _maps(pid), _environ(pid)
        except OSError:
            where = f"memory of process {pid}"
            found[where] = Finding(what=injected.NOT_LOOKED, where=where, means=NOT_READ)
            continue
        changed = {key: value for key, value in own.items() if environ.get(key) != value}
        for finding in [*injected.of_environment(changed), *injected.of_maps(lines, own)]:
            found[finding.where] = finding
    return list(found.values())


def process_findings(pid: int) -> list[Finding]:
    """Of a native process: variables, PYTHONPATH shadows, code that runs at start, libraries in memory.

    Raises UsageError when there is no such process, EnvironmentNotReady when it may not be read.
    """
    try:
        environ, lines = _environ(pid), _maps(pid)
    except FileNotFoundError:
        raise UsageError(f"no process {pid}", hint="Try: ps -ef") from None
    except OSError:
        raise EnvironmentNotReady(f"process {pid} cannot be read: {NOT_READ}", hint="Try again as its owner.") from None
    packages = _packages(environ, lines)
    roots = [str(folder.parents[2]) for folder in packages]
    found = injected.of_environment(environ)
    for part in (part for part in environ.get("PYTHONPATH", "").split(":") if part):
        found += _shadows(Path(part), packages)
    for folder in packages:
        found += _at_start(folder)
    return found + injected.of_maps(lines, environ, roots)


def _packages(environ: Mapping[str, str], lines: list[str]) -> list[Path]:
    """site-packages of the process: those its mapped libraries come from, and its VIRTUAL_ENV's."""
    found = {}
    for line in lines:
        if "/site-packages/" in line and "/" in line:
            folder = line[line.index("/") :].split("/site-packages/", 1)[0] + "/site-packages"
            found[folder] = Path(folder)
    venv = site_packages(Path(environ["VIRTUAL_ENV"])) if environ.get("VIRTUAL_ENV") else None
    if venv:
        found[str(venv)] = venv
    return list(found.values())


def _shadows(folder: Path, packages: list[Path]) -> list[Finding]:
    with suppress(OSError):
        names = _listed(folder)
        installed = [name for place in packages for name in _listed(place)]
        return injected.shadows(str(folder), names, installed) + _at_start(folder)
    return []


def _listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _at_start(folder: Path) -> list[Finding]:
    """sitecustomize and .pth files of a folder on the module path."""
    found = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in (".py", ".pth"):
                finding = injected.of_change(str(path), path.read_text("utf-8", "replace"))
                found += [finding] if finding else []
    return found


def _environ(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
    return dict(item.partition("=")[::2] for item in text.split("\0") if "=" in item)


def _maps(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines()
