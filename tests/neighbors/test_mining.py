import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from tests.rank_reference import assert_same, reference
from unic.neighbors.exact.finished_rows import finished_rows_beside
from unic.neighbors.exact.operand import Operand, has_int8
from unic.neighbors.exact.panels import rank_panels
from unic.neighbors.exact.ranking import ExactRows, Ranked
from unic.neighbors.exact.specials import find_specials
from unic.neighbors.exact.threads import Room
from unic.neighbors.faiss import search
from unic.neighbors.mining import MiningStats, Neighbors, mine_neighbors

EXACT = MiningStats("exact", "float64", 0, 0, 0, 1.0, 0, 0)
PRECISIONS = ("int8", "int16", "float32") if has_int8() else ("float32",)
needs_int8 = pytest.mark.skipif(not has_int8(), reason="no fast int8 products")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


def random_features(n_images: int, n_dims: int, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n_images, n_dims)).astype(np.float32)


def digits() -> NDArray[np.float32]:
    return load_digits().data.astype(np.float32)


# Against a full sort in float64


@pytest.mark.parametrize(
    ("n_images", "n_dims", "n_neighbors", "far_rank"),
    [(3, 1, 1, 2), (40, 5, 10, 39), (257, 33, 1, 2), (300, 64, 50, 150)],
)
def test_equals_full_sort(
    n_images: int, n_dims: int, n_neighbors: int, far_rank: int, device: str
) -> None:
    features = random_features(n_images, n_dims)
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank, device=device)
    expected = reference(features, n_neighbors, far_rank)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_allclose(mined.distances, expected.distances, rtol=1e-7)
    np.testing.assert_allclose(mined.far_radius, expected.far_radius, rtol=1e-7)


def test_equals_full_sort_on_digits_ties_included(device: str) -> None:
    # Pixels are whole numbers: distances are exact in float64, and many are equal.
    features = digits()
    mined = mine_neighbors(features, n_neighbors=20, far_rank=1000, device=device)
    assert_same(mined, reference(features, 20, 1000))


def test_equals_full_sort_far_from_the_origin(device: str) -> None:
    # Distances of 1 in the company of norms of 1e6: float32 products would see only noise.
    features = (random_features(200, 16) + np.float32(1e6)).astype(np.float32)
    mined = mine_neighbors(features, n_neighbors=10, far_rank=100, device=device)
    expected = reference(features, 10, 100)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_allclose(mined.far_radius, expected.far_radius, rtol=1e-7)


def test_equals_full_sort_with_an_outlier(device: str) -> None:
    # The outlier takes the slack of the screening above all distances; ranking still decides.
    features = random_features(60, 8)
    features[17] = 1e12
    mined = mine_neighbors(features, n_neighbors=10, far_rank=30, device=device)
    expected = reference(features, 10, 30)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_allclose(mined.far_radius, expected.far_radius, rtol=1e-7)


def test_returns_the_promised_shapes_and_dtypes() -> None:
    mined = mine_neighbors(random_features(12, 4), n_neighbors=3, far_rank=6)
    assert (mined.indices.shape, mined.indices.dtype) == ((12, 3), np.int64)
    assert (mined.distances.shape, mined.distances.dtype) == ((12, 3), np.float32)
    assert (mined.far_radius.shape, mined.far_radius.dtype) == ((12,), np.float32)


def test_takes_read_only_and_strided_features() -> None:
    features = random_features(20, 8)
    expected = mine_neighbors(features, n_neighbors=3, far_rank=6)
    strided = np.repeat(features, 2, axis=1)[:, ::2]
    strided.flags.writeable = False
    assert_same(mine_neighbors(strided, n_neighbors=3, far_rank=6), expected)


def assert_exact(mined: Neighbors, features: NDArray[np.float32], far_rank: int | None) -> None:
    """Compare up to 800 rows with those ranked in float64, which tests above check by a sort."""
    exact = ExactRows(features)
    for rows in np.array_split(np.arange(len(features))[:: -(-len(features) // 800)], 4):
        n_neighbors = mined.indices.shape[1]
        indices, distances, far_radius = exact.nearest(
            rows, n_neighbors=n_neighbors, far_rank=far_rank
        )
        np.testing.assert_array_equal(mined.indices[rows], indices)
        np.testing.assert_array_equal(mined.distances[rows], distances)
        if far_rank is not None:
            np.testing.assert_array_equal(mined.far_radius[rows], far_radius)


def clustered_features(n_images: int, n_dims: int, n_clusters: int = 20) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(n_clusters, n_dims))
    noise = 0.5 * generator.normal(size=(n_images, n_dims))
    return (centers[generator.integers(n_clusters, size=n_images)] + noise).astype(np.float32)


def duplicated_features(n_images: int, n_dims: int) -> NDArray[np.float32]:
    return np.repeat(random_features(-(-n_images // 7), n_dims), 7, axis=0)[:n_images]


@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
@pytest.mark.parametrize(
    ("n_images", "n_dims", "n_neighbors", "far_rank"),
    [(3000, 8, 200, 900), (2000, 256, 50, 400), (1500, 1024, 10, 1400)],
)
def test_tiles_are_exact(make, n_images: int, n_dims: int, n_neighbors: int, far_rank: int) -> None:
    features = make(n_images, n_dims)
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank)
    assert_exact(mined, features, far_rank)
    for precision in PRECISIONS:
        near = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=None, precision=precision)
        np.testing.assert_array_equal(near.indices, mined.indices)
        np.testing.assert_array_equal(near.distances, mined.distances)
        assert near.far_radius.shape == (0,)
        assert near.stats.precision == precision


def test_many_images_are_exact() -> None:
    features = clustered_features(20_000, 64, 100)
    mined = mine_neighbors(features, n_neighbors=50, far_rank=2500)
    exact = ExactRows(features)
    rows = np.random.default_rng(1).permutation(20_000)[:300]
    indices, distances, far_radius = exact.nearest(rows, n_neighbors=50, far_rank=2500)
    np.testing.assert_array_equal(mined.indices[rows], indices)
    np.testing.assert_array_equal(mined.distances[rows], distances)
    np.testing.assert_array_equal(mined.far_radius[rows], far_radius)
    assert mined.stats.redone_float64 < 200
    assert mined.stats.redone_int16 == 0


@settings(max_examples=60, deadline=None)
@given(
    features=arrays(
        np.float32,
        st.tuples(st.integers(4, 40), st.integers(1, 9)),
        elements=st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6, width=32),
    ),
    share=st.floats(0, 1),
    precision=st.sampled_from(PRECISIONS),
    has_far=st.booleans(),
    block_size=st.sampled_from([3, 16, None]),
)
def test_any_features_are_ranked_as_in_float64(
    features: NDArray[np.float32],
    share: float,
    precision: str,
    has_far: bool,
    block_size: int | None,
) -> None:
    assume((features != features[0]).any())
    n_images = len(features)
    far_rank = 2 + int(share * (n_images - 3))
    n_neighbors = 1 + int(share * (far_rank - 2))
    mined = mine_neighbors(
        features,
        n_neighbors=n_neighbors,
        far_rank=far_rank if has_far else None,
        precision="int16" if precision == "int8" and has_far else precision,
        block_size=block_size,
    )
    assert_exact(mined, features, far_rank if has_far else None)


@needs_int8
@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
def test_a_bound_of_the_far_radius_holds_and_is_close(make) -> None:
    features = make(1500, 256)
    exact = mine_neighbors(features, n_neighbors=20, far_rank=300)
    bound = mine_neighbors(features, n_neighbors=20, far_rank=300, far_bound=True)
    np.testing.assert_array_equal(bound.indices, exact.indices)
    assert bound.stats.precision == "int8"
    assert (bound.far_radius >= exact.far_radius).all()
    assert (bound.far_radius <= 1.05 * exact.far_radius).all()


def test_other_engines_give_the_far_radius_where_a_bound_will_do() -> None:
    features = random_features(100, 8)
    exact = mine_neighbors(features, n_neighbors=5, far_rank=30)
    bound = mine_neighbors(
        features, n_neighbors=5, far_rank=30, far_bound=True, precision="float32"
    )
    assert_same(bound, exact)


@needs_int8
def test_rows_that_int8_cannot_settle_are_redone_and_counted() -> None:
    # All are about equally far: hundreds come before the 20th within the error of int8.
    features = np.eye(400, dtype=np.float32) + random_features(400, 400) * np.float32(1e-2)
    mined = mine_neighbors(features, n_neighbors=20, far_rank=None, precision="int8")
    assert_exact(mined, features, None)
    assert mined.stats.redone_int16 == 400
    assert mined.stats.redone_float64 == 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
def test_products_stay_within_the_bound(make, precision: str) -> None:
    features = make(300, 200) + np.float32(3)
    features[5] = features.mean(axis=0)
    features[6] *= 20
    operand = Operand(features, np.random.default_rng(0).permutation(300), precision)
    high, low = operand.products(slice(0, 300), slice(0, 300), Room(300 * 300))
    digits = high.numpy().astype(np.float32)
    if low.numel():
        digits += np.float32(1 / 254) * low.numpy().astype(np.float32)
    scales, half_norms, tops, norms, errors = operand.sides
    products = scales[:, None] * (scales * digits)
    estimates, bounds = half_norms - products, tops - products
    spreads = errors[:, None] * norms + norms[:, None] * errors
    centered = features[operand.order].astype(np.longdouble)
    centered -= features.mean(axis=0, dtype=np.float64)
    centered *= np.sqrt(2 * operand.half_scale)
    truth = np.square(centered).sum(axis=1) / 2 - centered @ centered.T
    assert (estimates - spreads <= truth).all()
    assert (truth <= estimates + spreads + 8 * 2.0**-24 * operand.half_norms).all()
    assert (truth <= bounds + spreads).all()
    assert (np.abs(estimates - truth).max(axis=1) <= operand.slacks(np.arange(300)) / 2).all()


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-40, 1e18])
@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
def test_panels_are_exact(make, scale: float, device: str) -> None:
    # On a CPU the same products in float32 stand in for those of tensor cores.
    features = ((make(700, 48) + 2) * scale).astype(np.float32)
    found: list[Ranked] = []
    rank_panels(
        features,
        np.arange(700),
        specials=find_specials(features),
        n_neighbors=20,
        far_rank=300,
        device=torch.device(device),
        block_size=64,
        keep=found.append,
    )
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    order = np.argsort(columns[0])
    mined = Neighbors(*(column[order] for column in columns[1:]), EXACT)
    assert_exact(mined, features, 300)


@pytest.mark.parametrize("engine", ["faiss_flat", "faiss_ivf", "faiss_hnsw"])
def test_faiss_finds_what_its_recall_says(engine: str) -> None:
    pytest.importorskip("faiss")
    features = clustered_features(2000, 32)
    features[100:110] = features[0]
    mined = mine_neighbors(features, n_neighbors=10, far_rank=200, engine=engine)
    exact = mine_neighbors(features, n_neighbors=10, far_rank=200)
    np.testing.assert_array_equal(mined.indices[:, 0], np.arange(2000))
    np.testing.assert_array_equal(mined.far_radius, exact.far_radius)
    assert mined.stats.record()["engine"] == engine
    pairs = zip(mined.indices, exact.indices, strict=True)
    recall = np.mean([len(np.intersect1d(found, true)) / 10 for found, true in pairs])
    assert abs(mined.stats.recall - recall) < 0.05
    assert mined.stats.recall > (0.999 if engine == "faiss_flat" else 0.8)
    assert (np.diff(mined.distances, axis=1) >= 0).all()


def test_faiss_built_for_cpus_takes_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("faiss is built for GPUs")
    features, device = clustered_features(200, 8), torch.device("cuda")
    with pytest.raises(ValueError, match="built for CPUs alone, got faiss_flat on cuda"):
        search(features, 5, engine="faiss_flat", device=device)
    with caplog.at_level("INFO", "unic"):
        found = search(features, 5, engine="faiss_hnsw", device=device)
    assert "faiss_hnsw has no form for a GPU" in caplog.text
    expected = search(features, 5, engine="faiss_hnsw", device="cpu")
    np.testing.assert_array_equal(found[0], expected[0])


# Checkpoints


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


# Laws


@pytest.mark.parametrize("n_duplicates", [1, 5, 20])
def test_an_image_precedes_its_duplicates(n_duplicates: int, device: str) -> None:
    features = random_features(64, 7)
    copies = np.arange(1, n_duplicates + 1) * 3  # spread over the blocks
    features[copies] = features[0]
    mined = mine_neighbors(features, n_neighbors=5, far_rank=40, device=device, block_size=10)
    np.testing.assert_array_equal(mined.indices[:, 0], np.arange(64))
    for i in (0, *copies):
        others = [j for j in (0, *copies) if j != i][:4]
        assert mined.indices[i, 1 : 1 + len(others)].tolist() == others
        np.testing.assert_array_equal(mined.distances[i, : 1 + len(others)], 0.0)


def test_ties_at_the_last_rank_go_to_the_lower_index(device: str) -> None:
    features = np.eye(30, dtype=np.float32)  # all distances are equal
    mined = mine_neighbors(features, n_neighbors=4, far_rank=20, device=device, block_size=7)
    assert mined.indices[0].tolist() == [0, 1, 2, 3]
    assert mined.indices[2].tolist() == [2, 0, 1, 3]
    assert mined.indices[29].tolist() == [29, 0, 1, 2]
    np.testing.assert_array_equal(mined.far_radius, np.sqrt(np.float32(2)))


@pytest.mark.parametrize("block_size", [5, 37, 64, 500])
def test_block_size_changes_nothing(block_size: int, device: str) -> None:
    features = random_features(150, 37)
    features[100:120] = features[40:60]
    expected = mine_neighbors(features, n_neighbors=12, far_rank=70)
    mined = mine_neighbors(
        features, n_neighbors=12, far_rank=70, device=device, block_size=block_size
    )
    assert_same(mined, expected)


def test_permuting_the_images_permutes_the_result(device: str) -> None:
    features = random_features(150, 20)
    order = np.random.default_rng(1).permutation(150)
    mined = mine_neighbors(features, n_neighbors=12, far_rank=70, device=device)
    permuted = mine_neighbors(features[order], n_neighbors=12, far_rank=70, device=device)
    np.testing.assert_array_equal(order[permuted.indices], mined.indices[order])
    np.testing.assert_array_equal(permuted.distances, mined.distances[order])
    np.testing.assert_array_equal(permuted.far_radius, mined.far_radius[order])


def test_distances_ascend_up_to_the_far_radius() -> None:
    mined = mine_neighbors(digits()[:400], n_neighbors=50, far_rank=51)
    assert (np.diff(mined.distances, axis=1) >= 0).all()
    assert (mined.far_radius >= mined.distances[:, -1]).all()


def test_more_neighbors_extend_the_lists() -> None:
    features = digits()[:300]
    few = mine_neighbors(features, n_neighbors=5, far_rank=100)
    many = mine_neighbors(features, n_neighbors=30, far_rank=100)
    np.testing.assert_array_equal(many.indices[:, :5], few.indices)


@pytest.mark.parametrize("scale", [1e-25, 1e-40, 1e18])
def test_a_power_of_two_of_the_features_is_one_of_the_distances(scale: float, device: str) -> None:
    features = random_features(150, 20)
    scale = float(np.exp2(np.round(np.log2(scale))))
    scaled = (features * scale).astype(np.float32)
    mined = mine_neighbors(scaled, n_neighbors=12, far_rank=70, device=device)
    expected = mine_neighbors((scaled / scale).astype(np.float32), n_neighbors=12, far_rank=70)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_array_equal(mined.far_radius, expected.far_radius * np.float32(scale))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_screening_stays_within_its_slack(offset: float, device: str) -> None:
    features = (random_features(100, 48) * 10 + offset).astype(np.float32)
    rows = torch.arange(100, device=device)
    exact = np.square(features.astype(np.longdouble)[:, None] - features).sum(axis=2)
    blocks = ExactRows(features, device=device)
    screened, slack = blocks.screen(rows).cpu().numpy(), blocks.slack(rows).cpu().numpy()
    error = np.abs(screened - exact)[~np.eye(100, dtype=bool)].reshape(100, 99)
    assert (error <= slack).all()
    assert (slack < 1e-9 * exact.max()).all()


# Refusals


@pytest.mark.parametrize(
    ("n_neighbors", "far_rank", "message"),
    [
        (0, 5, "n_neighbors must be at least 1, got 0"),
        (5, 5, "n_neighbors must be below far_rank=5, got 5"),
        (2, 10, "far_rank must be below n=10, got 10"),
        (-1, 5, "n_neighbors must be at least 1, got -1"),
        (1, 0, "n_neighbors must be below far_rank=0, got 1"),
        (11, None, "n_neighbors must be at most n=10, got 11"),
    ],
)
def test_refuses_ranks_out_of_order(n_neighbors: int, far_rank: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mine_neighbors(random_features(10, 3), n_neighbors=n_neighbors, far_rank=far_rank)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(10, dtype=np.float32), "got float32 of shape (10,)"),
        (np.zeros((10, 3)), "got float64 of shape (10, 3)"),
        (np.zeros((10, 0), dtype=np.float32), "at least 1 dim, got shape (10, 0)"),
        (np.ones((10, 3), dtype=np.float32), "not be constant, got 10 identical rows"),
        (np.float32([[-2e38], [2e38], [0], [1]]), "must fit float32, got a spread of 4e+38"),
    ],
)
def test_refuses_features_without_an_order(features: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mine_neighbors(features, n_neighbors=1, far_rank=2)


def test_refuses_features_that_are_not_finite() -> None:
    features = random_features(10, 3)
    features[4, 1] = np.nan
    features[7, 0] = np.inf
    with pytest.raises(ValueError, match="got 2 rows that are not, the first is row 4"):
        mine_neighbors(features, n_neighbors=1, far_rank=2)


def test_refuses_empty_blocks() -> None:
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        mine_neighbors(random_features(10, 3), n_neighbors=1, far_rank=2, block_size=0)


@needs_int8
def test_refuses_int8_where_an_exact_far_radius_is_asked_for() -> None:
    with pytest.raises(ValueError, match="got int8 and far_rank=5"):
        mine_neighbors(random_features(10, 3), n_neighbors=2, far_rank=5, precision="int8")


@needs_int8
def test_refuses_int8_for_more_dims_than_its_sums_hold() -> None:
    features = random_features(4, 2**16 + 1)
    with pytest.raises(ValueError, match="float32 above 65536 dims, got int8 and 65537"):
        mine_neighbors(features, n_neighbors=2, far_rank=None, precision="int8")
    mined = mine_neighbors(features, n_neighbors=2, far_rank=None)
    assert mined.stats.precision == "float32"


def test_refuses_unknown_engines_and_precisions() -> None:
    features = random_features(10, 3)
    with pytest.raises(ValueError, match=r"precision must be auto or one of .* got float16"):
        mine_neighbors(features, n_neighbors=2, far_rank=5, precision="float16")
    with pytest.raises(ValueError, match="got annoy"):
        mine_neighbors(features, n_neighbors=2, far_rank=5, engine="annoy")
    with pytest.raises(ValueError, match="at most n=10, got 11"):
        mine_neighbors(features, n_neighbors=11, far_rank=None)
