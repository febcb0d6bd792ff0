"""Digests of the code, the files and the images that a result is built on."""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def code_digest(*scripts: str | Path) -> str:
    """Digest of scripts and of every package module that they import, directly or not.

    Only file contents count, so a touched file or a fresh checkout keeps the digest, and an
    edited module changes it for just those stages that import the module. Data files of the
    package (class lists, templates, weights) are not code; the artifacts record what they read.
    Nor are the ``__init__`` files of packages, which hold a docstring, and a version, alone.

    Args:
        scripts: Python files.

    Returns:
        16 hexadecimal digits.
    """
    paths = set().union(*(_closure(Path(script)) for script in scripts))
    contents = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    return hashlib.sha256(b"".join(sorted(contents))).hexdigest()[:16]


def imported_modules(script: str | Path) -> list[str]:
    """Names of the package modules that :func:`code_digest` covers for a script, sorted."""
    paths = _closure(Path(script)) - {Path(script)}
    return sorted(path.relative_to(PACKAGE.parent).as_posix() for path in paths)


def bundled_digest(weights: str) -> str:
    """Digest of the content of ``bundled:NAME`` weights.

    Raises:
        ValueError: If the package brings no weights of that name.
    """
    name = weights.removeprefix("bundled:")
    path = PACKAGE / "models" / "bundled" / f"{name}.safetensors"
    known = sorted(file.stem for file in (PACKAGE / "models" / "bundled").glob("*.safetensors"))
    if name not in known:
        raise ValueError(f"backbone.weights must be bundled:{'|'.join(known)}, got {weights}")
    return _content_digest(path)


def file_digest(path: str | Path) -> str | None:
    """Digest of the content of a file, None where there is none.

    A file is read once in a process as long as its size and times stay the same.
    """
    path = Path(path)
    if not path.is_file():
        return None
    found = path.stat()
    return _content_digest(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def image_digest(image_ids: Iterable[str]) -> str:
    """Digest of image ids in their order; row ``i`` means the same image where it is equal."""
    digest = hashlib.sha256()
    for image_id in image_ids:
        digest.update(image_id.encode() + b"\0")
    return digest.hexdigest()[:16]


def json_digest(content: Mapping[str, Any]) -> str:
    """Digest of JSON by its values, however it is written."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:16]


@cache
def _content_digest(path: Path, *_state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _closure(script: Path) -> set[Path]:
    found: set[Path] = set()
    pending = [script]
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending.extend(_imports(path))
    return found


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Package files named in the import statements of a file, read once in a process."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute_name(node, path)
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return frozenset(filter(None, map(_module_file, names)))


def _absolute_name(node: ast.ImportFrom, path: Path) -> str:
    """The module that a ``from`` statement of a file names, dots in front of it resolved."""
    if node.level == 0:
        return node.module or ""
    folder = path.parents[node.level - 1].relative_to(PACKAGE.parent)
    return ".".join([*folder.parts, *filter(None, [node.module])])


def _module_file(name: str) -> Path | None:
    """The file of a module of the package by its dotted name; None where it is no module of it."""
    root, *parts = name.split(".")
    path = PACKAGE.joinpath(*parts).with_suffix(".py")
    return path if root == PACKAGE.name and parts and path.is_file() else None
