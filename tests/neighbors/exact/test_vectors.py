import os
import subprocess
import sys

import numpy as np
import pytest

from unic.neighbors.exact.vectors import LANES, pack


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_packs_numbers_and_their_places(share: float) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=20 * LANES).astype(np.float32)
    values[0], values[-1] = -0.0, np.inf
    values[generator.random(len(values)) >= share] = np.nan
    packed = np.empty(len(values) + LANES, dtype=np.float32)
    places = np.empty(len(values) + LANES, dtype=np.int32)
    count = pack(values, packed, places)
    expected = np.flatnonzero(~np.isnan(values))
    np.testing.assert_array_equal(places[:count], expected)
    assert packed[:count].tobytes() == values[expected].tobytes()


@pytest.mark.parametrize("processor", ["generic", "x86-64-v3"])
def test_compiles_for_processors_without_wide_vectors(processor: str) -> None:
    if processor.startswith("x86") and os.uname().machine != "x86_64":
        pytest.skip(f"LLVM knows {processor} on x86-64 alone")
    code = (
        "import numpy as np; from unic.neighbors.exact.vectors import pack;"
        "values = np.full(32, np.nan, dtype=np.float32); values[[3, 20]] = 1.5, -2;"
        "packed, places = np.empty(48, dtype=np.float32), np.empty(48, dtype=np.int32);"
        "count = pack(values, packed, places); print(packed[:count], places[:count])"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "[ 1.5 -2. ] [ 3 20]\n", run.stderr
