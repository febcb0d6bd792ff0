import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unic

PACKAGE = Path(unic.__file__).parent
MINE = """
import numpy as np
from unic.mining import lists, mine_neighbors
features = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
mine_neighbors(features, n_neighbors=3, far_rank=9)
print(sum(lists.scan.stats.cache_misses.values()))
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

    stale = copy / "mining" / "__pycache__" / "scan.nbi"
    stale.parent.mkdir()
    stale.write_bytes(b"of another version")
    run("-m", "unic.cli", "compile")
    assert not stale.exists()
    assert run("-c", MINE) == "0\n"
