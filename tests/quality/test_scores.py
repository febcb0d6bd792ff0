import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.quality import references
from tests.quality.references import Ints, draw_clusters, draw_images, rank
from unic.quality.scores import (
    SCORES,
    Quality,
    adjust_neighbor_agreement,
    combine,
    measure_balance,
    measure_conductance,
    measure_neighbor_agreement,
    measure_silhouette,
    score_clusters,
)
from unic.recipe.silhouettes import centroid_silhouette

EXACT = 1e-9


def uneven(n_clusters: int, n_images: int = 60) -> Ints:
    """Cluster 0 is of one image, the last is empty."""
    clusters = 1 + draw_clusters(n_clusters - 2, n_images)
    clusters[17] = 0
    return clusters


def doubled() -> NDArray[np.float32]:
    """Images of which each is there three times."""
    return np.repeat(draw_images(20), 3, axis=0)


def blobs(n_clusters: int = 4, n_each: int = 15) -> tuple[NDArray[np.float32], Ints]:
    truth = np.random.default_rng(0).permutation(np.repeat(np.arange(n_clusters), n_each))
    noise = np.random.default_rng(1).normal(scale=1e-6, size=(len(truth), n_clusters + 1))
    return (np.eye(n_clusters, n_clusters + 1)[truth] + noise).astype(np.float32), truth


def deal(clusters: Ints) -> Ints:
    """A fifth of the images in the cluster of another."""
    return np.where(np.arange(len(clusters)) % 5 == 0, np.roll(clusters, 1), clusters)


def score(
    clusters: Ints, features: NDArray[np.float32], n_clusters: int, *other_runs: Ints
) -> Quality:
    confidence = np.linspace(0.2, 1.0, len(clusters), dtype=np.float32)
    return score_clusters(
        clusters,
        confidence,
        features=features,
        neighbors=rank(features),
        n_clusters=n_clusters,
        other_runs=other_runs,
    )


CASES = [
    (draw_clusters(2), draw_images(), 2),
    (draw_clusters(10), draw_images(), 10),
    (uneven(6), draw_images(), 6),
    (uneven(6), doubled(), 6),
    (np.arange(60), draw_images(), 60),
    (np.full(60, 2), draw_images(), 4),
    (np.array([0, 0, 0, 1]), draw_images(60)[:4], 3),
]


@pytest.fixture(params=range(len(CASES)))
def case(request: pytest.FixtureRequest) -> tuple[Ints, NDArray[np.float32], int]:
    return CASES[request.param]


# Plain loops


def test_neighbor_agreement(case: tuple[Ints, NDArray[np.float32], int]) -> None:
    clusters, features, n_clusters = case
    neighbors = rank(features)
    found = measure_neighbor_agreement(clusters, neighbors, n_clusters=n_clusters)
    shares = references.neighbor_shares(clusters, neighbors)
    assert found.overall == pytest.approx(sum(shares) / len(shares), abs=EXACT)
    expected = references.by_cluster(shares, clusters, n_clusters)
    np.testing.assert_allclose(found.by_cluster, expected, atol=EXACT)


def test_adjusted_neighbor_agreement(case: tuple[Ints, NDArray[np.float32], int]) -> None:
    clusters, features, n_clusters = case
    raw = measure_neighbor_agreement(clusters, rank(features), n_clusters=n_clusters)
    sizes = np.bincount(clusters, minlength=n_clusters)
    found = adjust_neighbor_agreement(raw, sizes)
    in_all = np.mean([references.chance_agreement(clusters, c) for c in clusters.tolist()])
    wanted = 0.0 if in_all == 1 else (raw.overall - in_all) / (1 - in_all)
    assert found.overall == pytest.approx(wanted, abs=EXACT)
    for cluster in range(n_clusters):
        chance = references.chance_agreement(clusters, cluster)
        if sizes[cluster] == 0:
            assert np.isnan(found.by_cluster[cluster])
        elif chance == 1:
            assert found.by_cluster[cluster] == 0.0
        else:
            expected = (raw.by_cluster[cluster] - chance) / (1 - chance)
            assert found.by_cluster[cluster] == pytest.approx(expected, abs=EXACT)


def test_conductance_and_isolation(case: tuple[Ints, NDArray[np.float32], int]) -> None:
    clusters, features, n_clusters = case
    neighbors = rank(features)
    expected = np.array(references.conductances(clusters, neighbors, n_clusters))  # (c, 2)
    found = measure_conductance(clusters, neighbors, n_clusters=n_clusters)
    shares = np.bincount(clusters, minlength=n_clusters) / len(clusters)
    for measured, wanted in zip(found, expected.T, strict=True):
        np.testing.assert_allclose(measured.by_cluster, wanted, atol=EXACT)
        assert measured.overall == pytest.approx(np.nansum(wanted * shares), abs=EXACT)


def test_silhouette(
    case: tuple[Ints, NDArray[np.float32], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters, features, n_clusters = case
    expected = references.silhouettes(clusters, features)
    if len(set(clusters.tolist())) == 1:
        expected = [-1.0] * len(clusters)
    for n_entries in (2**23, 1, 7 * features.shape[1]):
        monkeypatch.setattr("unic.quality.scores._BLOCK_ENTRIES", n_entries)
        found = measure_silhouette(clusters, features, n_clusters=n_clusters)
        assert found.overall == pytest.approx(np.mean(expected), abs=EXACT)
        by_cluster = references.by_cluster(expected, clusters, n_clusters)
        np.testing.assert_allclose(found.by_cluster, by_cluster, atol=EXACT)


def test_silhouette_is_that_of_the_recipe_where_no_image_is_alone() -> None:
    features, clusters = draw_images(400), draw_clusters(6, 400)
    points = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = measure_silhouette(clusters, features, n_clusters=6).overall
    assert found == pytest.approx(centroid_silhouette(points, clusters, 6), abs=1e-4)


def test_all_scores_are_those_of_the_functions() -> None:
    clusters, features, others = (
        uneven(6),
        draw_images(),
        [draw_clusters(6, seed=s) for s in (2, 3)],
    )
    found = score(clusters, features, 6, *others)
    isolation = measure_conductance(clusters, rank(features), n_clusters=6)[1]
    assert found.overall["isolation"] == isolation.overall
    silhouette = measure_silhouette(clusters, features, n_clusters=6)
    np.testing.assert_array_equal(found.by_cluster["silhouette"], silhouette.by_cluster)
    agreement = found.by_cluster["neighbor_agreement_adjusted"]
    assert found.overall["cluster_agreement"] == pytest.approx(agreement[:5].mean(), abs=EXACT)
    confidence = np.linspace(0.2, 1.0, 60, dtype=np.float32).astype(np.float64)
    assert found.overall["confidence"] == pytest.approx(confidence.mean(), abs=EXACT)
    expected = references.by_cluster(confidence.tolist(), clusters, 6)
    np.testing.assert_allclose(found.by_cluster["confidence"], expected, atol=EXACT)
    assert found.overall["used"] == pytest.approx(5 / 6)
    sizes = np.bincount(clusters, minlength=6)
    np.testing.assert_array_equal(found.by_cluster["size"][:5], sizes[:5] / 60)
    assert found.overall["balance"] == measure_balance(sizes)


def test_balance_equals_a_plain_loop() -> None:
    entropy = -sum(share * np.log(share) for share in (0.1, 0.3, 0.6))
    found = measure_balance(np.array([10, 0, 30, 60]))
    assert found == pytest.approx(entropy / np.log(4), abs=EXACT)


# Laws


def test_names_ranges_and_empty_clusters_are_as_promised(
    case: tuple[Ints, NDArray[np.float32], int],
) -> None:
    clusters, features, n_clusters = case
    found = score(clusters, features, n_clusters, np.roll(clusters, 1), clusters)
    names = set(found.overall) | set(found.by_cluster)
    assert names == set(SCORES)
    sizes = np.bincount(clusters, minlength=n_clusters)
    for name, value in found.overall.items():
        assert isinstance(value, float)
        assert SCORES[name].low - EXACT <= value <= SCORES[name].high + EXACT
    for name, values in found.by_cluster.items():
        assert values.shape == (n_clusters,)
        np.testing.assert_array_equal(np.isnan(values), sizes == 0)
        assert np.nanmin(values) >= SCORES[name].low - EXACT
        assert np.nanmax(values) <= SCORES[name].high + EXACT


def test_without_other_runs_nothing_is_said_of_them() -> None:
    found = score(draw_clusters(3), draw_images(), 3)
    assert not [name for name in (*found.overall, *found.by_cluster) if name.startswith("run_")]


def test_numbers_of_clusters_change_nothing_but_the_order() -> None:
    clusters, features, other = uneven(6), draw_images(), draw_clusters(6, seed=2)
    order = np.array([3, 0, 5, 1, 2, 4])
    expected = score(clusters, features, 6, other)
    found = score(order[clusters], features, 6, np.array([1, 2, 3, 4, 5, 0])[other])
    for name, value in expected.overall.items():
        assert found.overall[name] == pytest.approx(value, abs=EXACT)
    for name, values in expected.by_cluster.items():
        np.testing.assert_allclose(found.by_cluster[name][order], values, atol=EXACT)


def test_the_order_of_images_changes_nothing() -> None:
    clusters, features = uneven(6), draw_images()
    order = np.random.default_rng(5).permutation(60)
    expected, found = score(clusters, features, 6), score(clusters[order], features[order], 6)
    for name in ("neighbor_agreement", "isolation", "silhouette"):
        np.testing.assert_allclose(
            found.by_cluster[name], expected.by_cluster[name], atol=EXACT, equal_nan=True
        )


def test_lengths_of_features_do_not_matter_for_the_silhouette() -> None:
    clusters, features = draw_clusters(4), draw_images()
    expected = measure_silhouette(clusters, features, n_clusters=4).overall
    for factor in (1e-36, 1e30):
        scaled = features * np.float32(factor)
        found = measure_silhouette(clusters, scaled, n_clusters=4).overall
        assert found == pytest.approx(expected, abs=1e-6)


def test_separated_blobs_have_the_best_of_all_scores() -> None:
    features, truth = blobs()
    found = score(truth, features, 4, truth[::1], 3 - truth)
    for name, value in found.overall.items():
        if name != "confidence":
            best = 0.0 if SCORES[name].is_higher_better is False else 1.0
            assert value == pytest.approx(best, abs=1e-5), name


@pytest.mark.parametrize("n_clusters", [2, 10, 40])
def test_random_clusters_have_none_beyond_chance(n_clusters: int) -> None:
    rng = np.random.default_rng(0)
    n_images = 20_000
    near = rng.integers(n_images, size=(n_images, 11))
    near[:, 0] = np.arange(n_images)
    clusters = rng.choice(n_clusters, size=n_images, p=rng.dirichlet(5 * np.ones(n_clusters)))
    agreement = measure_neighbor_agreement(clusters, near, n_clusters=n_clusters)
    sizes = np.bincount(clusters, minlength=n_clusters)
    adjusted = adjust_neighbor_agreement(agreement, sizes)
    isolation = measure_conductance(clusters, near, n_clusters=n_clusters)[1]
    for found in (adjusted, isolation):
        assert found.overall == pytest.approx(0.0, abs=0.01)
        np.testing.assert_allclose(found.by_cluster, 0.0, atol=0.05)


def test_adjusted_agreement_has_mean_zero_over_all_ways_to_deal_the_images() -> None:
    neighbors, clusters = rank(draw_images()), uneven(6)
    rng = np.random.default_rng(0)
    sizes = np.bincount(clusters, minlength=6)
    dealt = [
        measure_neighbor_agreement(rng.permutation(clusters), neighbors, n_clusters=6)
        for _ in range(4000)
    ]
    found = np.mean([adjust_neighbor_agreement(each, sizes).overall for each in dealt])
    assert found == pytest.approx(0.0, abs=0.005)


def test_features_of_zeros_are_left_out_of_the_silhouette() -> None:
    features, clusters = draw_images(), draw_clusters(3)
    features[[4, 17]] = 0.0
    clusters[[4, 17]] = 0, 3
    rest = np.delete(np.arange(60), [4, 17])
    expected = references.silhouettes(clusters[rest], features[rest])
    found = measure_silhouette(clusters, features, n_clusters=4)
    assert found.overall == pytest.approx(np.mean(expected))
    assert np.isnan(found.by_cluster[3])
    assert score(clusters, features, 4).overall["silhouette"] == found.overall


def test_copies_of_one_image_apart_have_a_silhouette_of_zero() -> None:
    features, clusters = np.ones((8, 3), dtype=np.float32), np.arange(8) % 2
    found = measure_silhouette(clusters, features, n_clusters=2)
    assert found.overall == pytest.approx(0.0, abs=EXACT)


def test_one_cluster_of_all_is_no_success() -> None:
    found = score(np.full(60, 1), draw_images(), 3).overall
    assert found["neighbor_agreement"] == 1.0
    assert found["neighbor_agreement_adjusted"] == found["isolation"] == 0.0
    assert (found["conductance"], found["silhouette"]) == (1.0, -1.0)
    assert (found["balance"], found["used"]) == (0.0, pytest.approx(1 / 3))


def test_a_cluster_of_one_image_has_no_merit_by_itself() -> None:
    found = score(uneven(6), draw_images(), 6).by_cluster
    assert found["neighbor_agreement"][0] == found["silhouette"][0] == 0.0
    assert found["conductance"][0] == 1.0
    assert found["isolation"][0] == pytest.approx(0.0, abs=0.1)


def test_one_image_and_one_cluster_are_scored_too() -> None:
    assert measure_balance(np.array([3])) == 1.0
    one = np.zeros(1, dtype=np.int64)
    assert measure_silhouette(one, draw_images(1), n_clusters=1).overall == -1.0


def test_leaves_its_inputs_alone_and_repeats_itself() -> None:
    clusters, features, other = uneven(6), draw_images(), draw_clusters(6, seed=2)
    before = [array.tobytes() for array in (clusters, features, other)]
    first, second = (score(clusters, features, 6, other) for _ in range(2))
    assert before == [array.tobytes() for array in (clusters, features, other)]
    assert first.overall == second.overall
    for name, values in first.by_cluster.items():
        assert values.tobytes() == second.by_cluster[name].tobytes()


def test_needs_no_torch() -> None:
    code = "import sys, unic.quality.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Ranks by several scores


def with_scores(**overall: float) -> Quality:
    return Quality(overall, {})


def test_combine_is_the_mean_rank() -> None:
    qualities = [
        with_scores(silhouette=0.1, conductance=0.3),
        with_scores(silhouette=0.5, conductance=0.2),
        with_scores(silhouette=0.3, conductance=0.1),
        with_scores(silhouette=0.3, conductance=0.4),
    ]
    found = combine(qualities, names=["silhouette", "conductance"])
    np.testing.assert_allclose(found, [(0 + 1) / 6, (3 + 2) / 6, (1.5 + 3) / 6, (1.5 + 0) / 6])


def test_combine_finds_the_true_clusters() -> None:
    features, truth = blobs()
    candidates = [draw_clusters(4), truth, deal(truth)]
    found = combine([score(each, features, 4) for each in candidates])
    assert found.tolist() == [0.0, 1.0, 0.5]
    assert combine([score(truth, features, 4)]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("qualities", "names", "match"),
    [
        ([], ["silhouette"], "must hold at least 1 each, got 0 and 1"),
        ([with_scores(silhouette=0.1)], [], "must hold at least 1 each, got 1 and 0"),
        (
            [with_scores(balance=0.1)],
            ["balance"],
            "with a better direction, got balance",
        ),
        (
            [with_scores(acc=0.1)],
            ["acc"],
            "with a better direction, got acc",
        ),
        ([with_scores(isolation=0.1)], ["silhouette"], "the score silhouette, got one without it"),
    ],
)
def test_combine_refuses(qualities: list[Quality], names: list[str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        combine(qualities, names=names)


# Refusals

Change = Callable[[dict[str, NDArray[np.generic]]], object]


def spoil(name: str, index: object, value: object) -> Change:
    def change(inputs: dict[str, NDArray[np.generic]]) -> None:
        inputs[name][index] = value  # type: ignore[index]

    return change


def replace(name: str, function: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Change:
    def change(inputs: dict[str, NDArray[np.generic]]) -> None:
        inputs[name] = function(inputs[name])

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (spoil("clusters", 3, 4), "clusters must be at least 0 and below n_clusters=4, got 0 to 4"),
        (spoil("clusters", 3, -1), "clusters must be at least 0 .* got -1 to 3"),
        (replace("clusters", lambda a: a.astype(float)), "clusters must be integers .* float64"),
        (replace("clusters", lambda a: a[:0]), r"at least one, got int64 of shape \(0,\)"),
        (spoil("confidence", 3, 1.5), r"confidence must be in \[0, 1\], got 0.5 to 1.5"),
        (spoil("confidence", 3, np.nan), r"confidence must be in \[0, 1\], got nan"),
        (replace("confidence", lambda a: a[1:]), r"shape \(n=60,\), got \(59,\)"),
        (spoil("features", (3, 1), np.nan), "finite, got 1 rows that are not, .* is row 3"),
        (spoil("features", (5, 1), np.inf), "finite, got 1 rows that are not, .* is row 5"),
        (spoil("features", slice(None), 0.0), "must not be 0 in all of the 60 rows, they are"),
        (replace("features", lambda a: a[1:]), r"shape \(n=60, d\), got float32 .* \(59, 5\)"),
        (
            spoil("neighbors", (3, 2), 60),
            "neighbors must be at least 0 and below n=60, got 0 to 60",
        ),
        (spoil("neighbors", (3, 0), 4), "neighbors must have each image itself in column 0"),
        (replace("neighbors", lambda a: a[:, :1]), r"another image .* got shape \(60, 1\)"),
        (replace("neighbors", lambda a: a[1:]), r"shape \(n=60, k\), got int64 of .* \(59, 7\)"),
    ],
)
def test_refuses(change: Change, match: str) -> None:
    inputs: dict[str, NDArray[np.generic]] = {
        "clusters": np.arange(60) % 4,
        "confidence": np.full(60, 0.5, dtype=np.float32),
        "features": draw_images(),
        "neighbors": rank(draw_images()).copy(),
    }
    change(inputs)
    with pytest.raises(ValueError, match=match):
        score_clusters(n_clusters=4, **inputs)  # type: ignore[arg-type]


def test_refuses_runs_of_other_images_and_no_clusters() -> None:
    clusters, features = draw_clusters(3), draw_images()
    with pytest.raises(ValueError, match="runs must be of the same images, got 60 and 59"):
        score(clusters, features, 3, clusters[1:])
    with pytest.raises(ValueError, match="n_clusters must be at least 1, got 0"):
        measure_silhouette(clusters, features, n_clusters=0)
