"""Finished rows: a pass that goes on where it was."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.rank_reference import assert_same, clustered_features, random_features
from unic.neighbors.exact.finished_rows import finished_rows_beside
from unic.neighbors.mining import Neighbors, mine_neighbors


def test_a_checkpoint_saves_the_rows_it_holds(tmp_path: Path) -> None:
    features = clustered_features(900, 16)
    expected = mine_neighbors(features, n_neighbors=10, far_rank=300)
    folder = tmp_path / "rows"
    first = mine_neighbors(features, n_neighbors=10, far_rank=300, block_size=64, checkpoint=folder)
    parts = sorted(folder.glob("*.npy"))
    assert len(parts) > 8
    assert first.stats.resumed == 0
    for part in parts[3:]:
        part.unlink()
    resumed = mine_neighbors(
        features, n_neighbors=10, far_rank=300, block_size=100, checkpoint=folder
    )
    assert 0 < resumed.stats.resumed < 900
    again = mine_neighbors(features, n_neighbors=10, far_rank=300, checkpoint=folder)
    assert again.stats.resumed == 900
    for mined in (first, resumed, again):
        assert_same(mined, expected)


def test_the_far_radius_of_other_engines_goes_on_too(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    features = clustered_features(900, 16)
    arguments = {"n_neighbors": 10, "far_rank": 300, "engine": "faiss_hnsw"}
    first = mine_neighbors(features, **arguments, checkpoint=tmp_path)
    again = mine_neighbors(features, **arguments, checkpoint=tmp_path)
    assert (first.stats.resumed, again.stats.resumed) == (0, 900)
    assert first.stats.record() == again.stats.record()
    assert_same(again, first)


def test_a_killed_pass_goes_on(tmp_path: Path) -> None:
    features = clustered_features(3000, 64)
    np.save(tmp_path / "features.npy", features)
    folder = tmp_path / "rows"
    script = (
        "import sys, numpy as np; from pathlib import Path;"
        "from unic.neighbors.mining import mine_neighbors;"
        "mine_neighbors(np.load(sys.argv[1]), n_neighbors=10, far_rank=300, block_size=200,"
        "checkpoint=Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "features.npy"), str(folder)],
        stderr=subprocess.DEVNULL,
    )
    while len(list(folder.glob("*.npy"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    mined = mine_neighbors(features, n_neighbors=10, far_rank=300, checkpoint=folder)
    assert 0 < mined.stats.resumed < 3000
    assert_same(mined, mine_neighbors(features, n_neighbors=10, far_rank=300))


def test_a_checkpoint_of_others_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(features: NDArray[np.float32], n_neighbors: int) -> Neighbors:
        return mine_neighbors(features, n_neighbors=n_neighbors, far_rank=9, checkpoint=tmp_path)

    features = random_features(50, 4)
    mine(features, 3)
    moved = features + np.float32(1)
    for others, changed, n_neighbors in [
        ("n_neighbors", features, 4),
        ("features", moved, 4),
        ("features and n_neighbors", features, 3),
    ]:
        mined = mine(changed, n_neighbors)
        assert f"are of other {others} and start anew" in caplog.text
        assert mined.stats.resumed == 0
        assert mine(changed, n_neighbors).stats.resumed == 50
        assert_same(mined, mine_neighbors(changed, n_neighbors=n_neighbors, far_rank=9))
    monkeypatch.setattr("unic.neighbors.mining.code_digest", lambda _: "edited")
    assert mine(features, 3).stats.resumed == 0
    assert "are of other code and start anew" in caplog.text


def test_a_checkpoint_lasts_until_the_store_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, store = clustered_features(900, 16), tmp_path / "neighbors.zarr"
    device = torch.device("cpu")
    with finished_rows_beside(store, features, device) as folder:
        assert folder is None  # such a pass is over before it could be killed
    monkeypatch.setattr("unic.neighbors.exact.finished_rows._LONG", {"cpu": 900**2 * 16, "cuda": 0})
    with finished_rows_beside(store, features[:-1], device) as folder:
        assert folder is None

    def mine_and(store_it: Callable[[], object]) -> int:
        with finished_rows_beside(store, features, device) as folder:
            mined = mine_neighbors(features, n_neighbors=10, far_rank=300, checkpoint=folder)
            store_it()
        return mined.stats.resumed

    with pytest.raises(ZeroDivisionError):
        mine_and(lambda: 1 // 0)
    assert [path.name for path in tmp_path.iterdir()] == [".neighbors.zarr.checkpoint"]
    assert mine_and(store.mkdir) == 900
    assert [path.name for path in tmp_path.iterdir()] == ["neighbors.zarr"]
    assert mine_and(store.exists) == 0


@pytest.mark.parametrize("content", [b"", b"rows"])
def test_refuses_a_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    mine_neighbors(random_features(50, 4), n_neighbors=3, far_rank=9, checkpoint=tmp_path)
    next(tmp_path.glob("rows-*.npy")).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"rows-000000-\w+\.npy is damaged: .*; delete {tmp_path}"
    ):
        mine_neighbors(random_features(50, 4), n_neighbors=3, far_rank=9, checkpoint=tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"must hold manifest\.json beside its rows"):
        mine_neighbors(random_features(50, 4), n_neighbors=3, far_rank=9, checkpoint=tmp_path)


def test_refuses_to_start_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="bytes must be free, got 1,000"):
        mine_neighbors(random_features(50, 4), n_neighbors=3, far_rank=9, checkpoint=tmp_path)
