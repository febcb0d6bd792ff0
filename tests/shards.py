"""Shards: into how many parts a stage is cut, and what the parts must amount to."""

from pathlib import Path

COUNTS = (1, 2, 3, 7)


def content(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
