import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unic

PACKAGE = Path(unic.__file__).parent
MINE = """
import sys
import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from unic.baselines.kmeans import fit_kmeans
from unic.maps.layout import map_images
from unic.maps.trustworthiness import score_map
from unic.neighbors.far_sets import FarPool
from unic.neighbors.mining import mine_neighbors
features = np.random.default_rng(0).normal(size=(500, 3)).round(1).astype(np.float32)
features[100:200], features[7] = features[3], 1e4
mined = mine_neighbors(features, n_neighbors=3, far_rank=90)
unlabeled = np.full(500, -1, dtype=np.int64)
pool = FarPool(features, mined.far_radius, far_rank=90, known_labels=unlabeled)
pool.draw(np.arange(500), 20, np.random.default_rng(0))
score_map(map_images(mined.indices, features, seed=0), mined.indices, features)
more = np.arange(2000)[:, None] // 2 * 2 + [0, 1]
more[1::2] = more[1::2, ::-1]
map_images(more, np.tile(features, (4, 1)), seed=0)
for clustered in (features, np.tile(features, (1, 200))):
    fit_kmeans(clustered, n_clusters=30, generator=torch.Generator().manual_seed(0))
modules = [module for name, module in sys.modules.items() if name.startswith("unic.")]
loops = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Dispatcher)}
misses = {v.__name__: sum(v.stats.cache_misses.values()) for v in loops.values()}
print({name for name, count in misses.items() if count} or 0)
"""


@pytest.mark.slow
def test_compiled_loops_are_there_when_first_used(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(PACKAGE, tmp_path / "unic", ignore=ignored)

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    stale = copy / "neighbors" / "exact" / "__pycache__" / "scan.nbi"
    stale.parent.mkdir()
    stale.write_bytes(b"of another version")
    run("-m", "unic.cli", "compile")
    assert not stale.exists()
    assert run("-c", MINE) == "0\n"
