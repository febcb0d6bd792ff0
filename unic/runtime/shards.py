"""Shards: the rows of a stage shared out among several jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shard:
    """One of ``count`` jobs that share out the rows of a stage."""

    index: int  # from 0
    count: int

    def rows(self, n_rows: int, *, multiple: int = 1) -> range:
        """The rows of this job: neighboring ones, the first shards being the longer ones.

        Args:
            n_rows: Rows of all jobs together.
            multiple: Of what a shard must begin at, so that its batches are those of one job.

        Example:
            >>> [Shard(index, 2).rows(5) for index in range(2)]
            [range(0, 3), range(3, 5)]
            >>> [Shard(index, 2).rows(10, multiple=4) for index in range(2)]
            [range(0, 8), range(8, 10)]
        """
        n_blocks = -(-n_rows // multiple)
        edges = [-(-n_blocks * (self.index + step) // self.count) * multiple for step in (0, 1)]
        return range(*(min(edge, n_rows) for edge in edges))


WHOLE = Shard(0, 1)


def read_shard(wildcards: Any) -> Shard:
    """The shard of a job by its wildcards ``shard`` and ``n_shards``; all rows without these."""
    if not hasattr(wildcards, "shard"):
        return WHOLE
    return Shard(int(wildcards.shard), int(wildcards.n_shards))


def check_alike(parts: Sequence[str | Path], settings: Sequence[Mapping[str, Any]]) -> None:
    """Check that the parts of all shards were made with the same settings.

    Raises:
        ValueError: If one differs; names the setting and the two parts.
    """
    first, *others = map(_flatten, settings)
    for part, found in zip(parts[1:], others, strict=True):
        for key in first | found:
            if first.get(key) != found.get(key):
                raise ValueError(
                    f"parts must be of the same settings, {key} is {first.get(key)!r} in "
                    f"{parts[0]} and {found.get(key)!r} in {part}; delete them and run the "
                    "workflow again"
                )


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names with dots."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": inner for name, inner in _flatten(value).items()}
        else:
            found[key] = value
    return found
