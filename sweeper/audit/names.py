"""Which path of one side is which path of the other, when builds put hashes and versions into names. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

DIST_INFO = re.compile(r"(^|/)[^/]+\.(dist-info|egg-info)/")
SHORTENED = (
    # auditwheel: libgomp-a34b3233.so.1, and the folder it goes to.
    (re.compile(r"-[0-9a-f]{8,}(?=(\.so|\.dylib|\.dll))"), ""),
    (re.compile(r"\.(cpython-\d+[a-z]*(-[a-z0-9_]+)*|abi3|cp\d+-[a-z0-9_]+)(?=\.(so|pyd)$)"), ""),
    (re.compile(r"(?<=\.so)(\.\d+)+$"), ""),
    (re.compile(r"(^|/)python3\.\d+(?=/)"), r"\1python3"),
    (re.compile(r"(^|/)[^/]+\.data/(purelib|platlib)/"), r"\1"),
    (re.compile(r"(^|/)([A-Za-z0-9_.]+?)-\d[^/]*(?=\.(dist-info|egg-info)/)"), r"\1\2"),
)


def key_of(path: str, *, one_package: bool = False) -> str:
    """The path without build hashes, Python and package versions.

    `one_package`: the side is one distribution and has one metadata folder, whatever its name; a fork has another name.
    """
    if one_package:
        path = DIST_INFO.sub(r"\1*.\2/", path)
    for pattern, text in SHORTENED:
        path = pattern.sub(text, path)
    return path


def keyed(paths: Iterable[str], *, one_package: bool = False) -> dict[str, str]:
    """key -> path. Paths that would share a key keep their own name, so nothing is hidden by shortening."""
    pairs = [(key_of(path, one_package=one_package), path) for path in paths]
    count = Counter(key for key, _ in pairs)
    return {key if count[key] == 1 else path: path for key, path in pairs}


def top_level(paths: Iterable[str]) -> frozenset[str]:
    """First parts of the paths of a wheel, its metadata left out."""
    parts = {path.split("/", 1)[0] for path in paths}
    return frozenset(part for part in parts if not part.endswith((".dist-info", ".data")))


def within(paths: Iterable[str], prefixes: Iterable[str]) -> frozenset[str]:
    """Paths that are one of the prefixes or lie below one."""
    wanted = tuple(prefix.strip("/") for prefix in prefixes)
    return frozenset(path for path in paths if any(path == p or path.startswith(p + "/") for p in wanted))


def moved(removed: Mapping[str, str | None], added: Mapping[str, str | None]) -> dict[str, str]:
    """old path -> new path for files with the same content fingerprint. Empty and ambiguous files are left alone."""
    old = {print_: path for path, print_ in removed.items() if print_ and not print_.endswith(":0")}
    new = Counter(added.values())
    twice = Counter(removed.values())
    return {
        old[print_]: path for path, print_ in added.items() if print_ in old and new[print_] == 1 and twice[print_] == 1
    }
