from types import SimpleNamespace

import pytest

from unic.runtime.shards import WHOLE, Shard, read_shard


@pytest.mark.parametrize("multiple", [1, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("n_rows", [0, 1, 63, 64, 1000])
def test_shards_cover_all_rows_once_and_begin_at_multiples(
    n_rows: int, count: int, multiple: int
) -> None:
    shards = [Shard(i, count).rows(n_rows, multiple=multiple) for i in range(count)]
    assert [row for shard in shards for row in shard] == list(range(n_rows))
    assert all(shard.start % multiple == 0 for shard in shards if len(shard))
    blocks = [-(-len(shard) // multiple) for shard in shards]
    assert max(blocks) - min(blocks) <= 1


def test_a_job_finds_its_shard_in_its_wildcards() -> None:
    assert read_shard(SimpleNamespace(experiment="x")) == WHOLE
    assert read_shard(SimpleNamespace(shard="2", n_shards="7")) == Shard(2, 7)
