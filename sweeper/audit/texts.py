"""Does a changed source file do anything else than before, and what are the lines? Pure.

Python is compared as a syntax tree without docstrings, C++ without comments and white space: a reworded comment in a
kernel is no kernel change. Within Python that holds kernels, the kernels themselves (decorated functions and what they
are given at module level) are compared apart from the code that calls them.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator

COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S)
SPACE = re.compile(r"\s+")
JIT = re.compile(r"(^|\.)(jit|kernel|prim_func|autotune|heuristics)$")
C_LIKE = (".cu", ".cuh", ".inl", ".hpp", ".cpp", ".cc", ".c", ".h", ".hip", ".cutlass", ".metal", ".cl")
CODE_TEXT = re.compile(r"__global__|__device__|extern \"C\"|#include")
FEW_LINES = 60
"""A syntax tree is only asked when so few lines differ that they may all be comments; parsing takes 10 ms a file."""


def same_effect(path: str, old: bytes, new: bytes) -> bool:
    """True when only comments, docstrings or white space differ; False also when that cannot be told."""
    if old == new:
        return True
    if path.endswith(C_LIKE):
        return _bare(old) == _bare(new)
    if path.endswith(".py"):
        return _may_be_comments(old, new) and same_python(old, new)
    if path.endswith(("METADATA", "PKG-INFO")):
        return _requirements(old) == _requirements(new)
    return False


def kernels_differ(old: bytes, new: bytes) -> bool:
    """Whether the kernels in two versions of a Python file differ; True when one of them cannot be parsed.

    A kernel is a function under a jit decorator, or a string that holds CUDA source. Constants at module level count
    with them: kernels read them when they are compiled.
    """
    try:
        return _kernels(old) != _kernels(new)
    except (SyntaxError, ValueError, RecursionError):
        return True


def same_python(old: bytes, new: bytes) -> bool:
    """Equal syntax trees but for docstrings. Code newer than this interpreter's grammar counts as different."""
    try:
        return _equal(_parsed(old), _parsed(new))
    except (SyntaxError, ValueError, RecursionError):
        return False


def diff(path_a: str, path_b: str, old: bytes, new: bytes, limit: int) -> list[str]:
    """Unified diff with one line of context, at most `limit` lines, then how many were left out."""
    lines = difflib.unified_diff(_lines(old), _lines(new), f"A/{path_a}", f"B/{path_b}", lineterm="", n=1)
    out = list(lines)
    return out if len(out) <= limit else [*out[:limit], f"  ({len(out) - limit} more lines of this file)"]


def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "replace").splitlines()


def _bare(text: bytes) -> str:
    without = COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else " ", text.decode("utf-8", "replace"))
    return SPACE.sub(" ", without)


def _may_be_comments(old: bytes, new: bytes) -> bool:
    return len(set(old.splitlines()) ^ set(new.splitlines())) <= FEW_LINES


def _requirements(text: bytes) -> list[str]:
    return sorted(line for line in _lines(text) if line.startswith(("Requires-Dist:", "Requires-Python:")))


def _parsed(text: bytes) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
    return tree


def _equal(a: object, b: object) -> bool:
    """Fields of two nodes in step, so that the first difference ends it."""
    if type(a) is not type(b):
        return False
    if isinstance(a, ast.AST) and isinstance(b, ast.AST):
        return all(_equal(getattr(a, name, None), getattr(b, name, None)) for name in a._fields)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def _kernels(text: bytes) -> list[str]:
    tree = _parsed(text)
    found = [ast.dump(node) for node in ast.walk(tree) if _is_kernel(node)]
    return sorted(found + [ast.dump(node) for node in _constants(tree)])


def _is_kernel(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return any(JIT.search(name) for decorator in node.decorator_list for name in _names(decorator))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE_TEXT.search(node.value) is not None


def _names(decorator: ast.expr) -> Iterator[str]:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(target, ast.Name | ast.Attribute):
        yield ast.unparse(target)


def _constants(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant | ast.Call):
            names = [
                ast.unparse(target) for target in getattr(node, "targets", [getattr(node, "target", None)]) if target
            ]
            if any(name.isupper() for name in names):
                yield node
