import tracemalloc
from collections.abc import Callable
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.neighbors.mining import mine_neighbors
from unic.quality import scores
from unic.quality.scores import (
    SCORES,
    Agreement,
    Quality,
    adjust_neighbor_agreement,
    combine,
    compare_partitions,
    compare_runs,
    find_run_agreement,
    measure_balance,
    measure_conductance,
    measure_neighbor_agreement,
    measure_silhouette,
    measure_stability,
    score_clusters,
)

N_CLUSTERS = 7  # of which 5 and 6 are empty, and 4 is a single image


class Data:
    """Images in random clusters of unequal sizes, with random neighbors."""

    def __init__(self, seed: int = 0, n_images: int = 60, n_neighbors: int = 4) -> None:
        generator = np.random.default_rng(seed)
        self.clusters = generator.choice(4, size=n_images, p=[0.6, 0.2, 0.1, 0.1])
        self.clusters[:4] = np.arange(4)
        self.clusters[-1] = 4
        self.features = generator.normal(size=(n_images, 3)).astype(np.float32)
        self.confidence = generator.random(n_images).astype(np.float32)
        others = np.array(
            [generator.permutation(n_images - 1)[:n_neighbors] for _ in range(n_images)]
        )
        own = np.arange(n_images)[:, None]
        self.neighbors = np.hstack([own, others + (others >= own)])
        self.other_runs = [generator.integers(5, size=n_images) for _ in range(3)]
        # Clusters that are found again, but for a third of the images.
        self.other_runs[0] = np.where(
            generator.random(n_images) < 0.7, 4 - self.clusters, self.other_runs[0]
        )

    def score(self, **changed: Any) -> Quality:
        given: dict[str, Any] = {
            "clusters": self.clusters,
            "confidence": self.confidence,
            "features": self.features,
            "neighbors": self.neighbors,
            "n_clusters": N_CLUSTERS,
            "other_runs": self.other_runs,
        }
        return score_clusters(**given | changed)


@pytest.fixture(params=[0, 1, 2])
def data(request: pytest.FixtureRequest) -> Data:
    return Data(request.param)


def blobs(n_each: int = 30, n_blobs: int = 4) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Clusters far apart, and features."""
    clusters = np.repeat(np.arange(n_blobs), n_each)
    noise = np.random.default_rng(0).normal(scale=0.01, size=(len(clusters), n_blobs))
    return clusters, (np.eye(n_blobs)[clusters] + noise).astype(np.float32)


def mine(features: NDArray[np.float32]) -> NDArray[np.int64]:
    return mine_neighbors(features, n_neighbors=6, far_rank=None).indices


def average(values: list[float], clusters: NDArray[np.int64]) -> list[float]:
    """In all, then of each cluster."""
    found = [sum(values) / len(values)]
    for cluster in range(N_CLUSTERS):
        own = [value for value, each in zip(values, clusters, strict=True) if each == cluster]
        found.append(sum(own) / len(own) if own else np.nan)
    return found


def assert_is(quality: Quality, name: str, expected: list[float]) -> None:
    found = [quality.overall[name], *quality.by_cluster[name]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def assert_same(one: Quality, other: Quality, order: NDArray[np.int64] | None = None) -> None:
    assert one.overall == pytest.approx(other.overall, abs=1e-12)
    assert one.by_cluster.keys() == other.by_cluster.keys()
    for name, values in one.by_cluster.items():
        permuted = values if order is None else values[order]
        np.testing.assert_allclose(permuted, other.by_cluster[name], rtol=0, atol=1e-12)


def test_neighbor_agreement_is_that_of_a_loop(data: Data) -> None:
    shares, quality = [], data.score()
    for image, cluster in enumerate(data.clusters):
        same = [data.clusters[other] == cluster for other in data.neighbors[image, 1:]]
        shares.append(sum(same) / len(same))
    expected = average(shares, data.clusters)
    assert_is(quality, "neighbor_agreement", expected)
    # By chance: another image drawn at random is in the cluster.
    chances = []
    for image, cluster in enumerate(data.clusters):
        others = np.delete(data.clusters, image)
        chances.append(sum(others == cluster) / len(others))
    adjusted = [
        (share - chance) / (1 - chance)
        for share, chance in zip(expected, average(chances, data.clusters), strict=True)
    ]
    assert_is(quality, "neighbor_agreement_adjusted", adjusted)


def test_conductance_is_that_of_a_loop(data: Data) -> None:
    volumes, cuts = [0] * N_CLUSTERS, [0] * N_CLUSTERS
    for image, one in enumerate(data.clusters):
        for neighbor in data.neighbors[image, 1:]:
            other = data.clusters[neighbor]
            volumes[one] += 1
            volumes[other] += 1
            if one != other:
                cuts[one] += 1
                cuts[other] += 1
    total = sum(volumes)
    conductance, isolation = [np.nan] * N_CLUSTERS, [np.nan] * N_CLUSTERS
    for cluster in set(data.clusters.tolist()):
        volume, cut = volumes[cluster], cuts[cluster]
        conductance[cluster] = cut / min(volume, total - volume)
        isolation[cluster] = 1 - cut * total / (volume * (total - volume))
    for name, values in (("conductance", conductance), ("isolation", isolation)):
        in_all = sum(values[cluster] for cluster in data.clusters) / len(data.clusters)
        assert_is(data.score(), name, [in_all, *values])


def test_silhouette_is_that_of_a_loop(data: Data) -> None:
    points = data.features.astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    silhouettes = []
    for point, own in zip(points, data.clusters, strict=True):
        to_means = {}
        for cluster in set(data.clusters.tolist()):
            mean = points[data.clusters == cluster].mean(axis=0)
            to_means[cluster] = np.sqrt(((point - mean) ** 2).sum())
        a = to_means.pop(own)
        b = min(to_means.values())
        is_alone = (data.clusters == own).sum() == 1
        silhouettes.append(0.0 if is_alone else (b - a) / max(a, b))
    assert_is(data.score(), "silhouette", average(silhouettes, data.clusters))


def test_confidence_and_sizes_are_those_of_a_loop(data: Data) -> None:
    quality, n_images = data.score(), len(data.clusters)
    expected = average([float(value) for value in data.confidence], data.clusters)
    assert_is(quality, "confidence", expected)
    counts = [sum(data.clusters == cluster) for cluster in range(N_CLUSTERS)]
    sizes = [count / n_images if count else np.nan for count in counts]
    np.testing.assert_allclose(quality.by_cluster["size"], sizes, atol=1e-9)
    entropy = -sum(size * np.log(size) for size in sizes if size > 0)
    assert quality.overall["balance"] == pytest.approx(entropy / np.log(N_CLUSTERS), abs=1e-9)
    assert quality.overall["used"] == 5 / 7


def best_pairings(one: NDArray[np.int64], other: NDArray[np.int64], n_clusters: int) -> list[Any]:
    """All permutations by which most images agree."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for pairing in permutations(range(n_clusters)):
        hits = sum(pairing[each] == partner for each, partner in zip(one, other, strict=True))
        found.setdefault(hits, []).append(pairing)
    return found[max(found)]


def agree(one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[float, set[float], float]:
    """Accuracy, kappa of each best pairing and adjusted Rand index, by loops."""
    n_images, kappas, accuracy = len(one), set(), 0.0
    for pairing in best_pairings(one, other, 5):
        accuracy = sum(np.array(pairing)[one] == other) / n_images
        chance = sum((one == c).mean() * (other == pairing[c]).mean() for c in range(5))
        kappas.add((accuracy - chance) / (1 - chance))
    pairs = [(one[i] == one[j], other[i] == other[j]) for i, j in combinations(range(n_images), 2)]
    both = sum(a and b for a, b in pairs)
    of_one, of_other = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    expected = of_one * of_other / len(pairs)
    return accuracy, kappas, (both - expected) / ((of_one + of_other) / 2 - expected)


def test_agreement_of_two_partitions_is_that_of_loops(data: Data) -> None:
    for other in data.other_runs:
        accuracy, kappas, ari = agree(data.clusters, other)
        found = compare_partitions(data.clusters, other, n_clusters=5)
        assert found.accuracy == pytest.approx(accuracy, abs=1e-9)
        assert found.ari == pytest.approx(ari, abs=1e-9)
        assert min(abs(found.kappa - kappa) for kappa in kappas) < 1e-9


def test_agreement_of_runs_is_the_mean_of_pairs(data: Data) -> None:
    runs = [data.clusters, *data.other_runs]
    pairs = [compare_partitions(*pair, n_clusters=5) for pair in combinations(runs, 2)]
    found = compare_runs(runs, n_clusters=5)
    np.testing.assert_allclose(found, np.mean(pairs, axis=0), atol=1e-9)
    overall = data.score(n_clusters=5).overall
    assert [overall[f"run_{name}"] for name in Agreement._fields] == list(found)


def test_run_agreement_is_that_of_a_loop(data: Data) -> None:
    found = find_run_agreement(data.clusters, data.other_runs[:1], n_clusters=5)
    by_pairing = [
        (np.array(pairing)[data.other_runs[0]] == data.clusters).tolist()
        for pairing in best_pairings(data.other_runs[0], data.clusters, 5)
    ]
    assert found.tolist() in by_pairing
    each = [find_run_agreement(data.clusters, [run], n_clusters=5) for run in data.other_runs]
    shares = find_run_agreement(data.clusters, data.other_runs, n_clusters=5)
    np.testing.assert_allclose(shares, np.mean(each, axis=0), atol=1e-9)
    quality = data.score(n_clusters=N_CLUSTERS)
    assert np.isnan(quality.by_cluster["run_agreement"][5:]).all()
    shares = find_run_agreement(data.clusters, data.other_runs, n_clusters=N_CLUSTERS)
    assert_is(quality, "run_agreement", average(list(shares), data.clusters))


def test_renumbered_clusters_have_the_same_scores_in_another_order(data: Data) -> None:
    order = np.random.default_rng(3).permutation(N_CLUSTERS)
    runs = [4 - data.clusters, data.clusters]  # no two pairings are as good
    found = data.score(clusters=np.argsort(order)[data.clusters], other_runs=runs)
    assert_same(data.score(other_runs=runs), found, order)


def test_permuted_images_have_the_same_scores(data: Data) -> None:
    order = np.random.default_rng(3).permutation(len(data.clusters))
    runs = [4 - data.clusters]
    found = data.score(
        clusters=data.clusters[order],
        confidence=data.confidence[order],
        features=data.features[order],
        neighbors=np.argsort(order)[data.neighbors[order]],
        other_runs=[run[order] for run in runs],
    )
    assert_same(data.score(other_runs=runs), found)


def test_an_empty_cluster_changes_no_other(data: Data) -> None:
    more, fewer = data.score(), data.score(n_clusters=5)
    for name, values in more.by_cluster.items():
        assert np.isnan(values[5:]).all()
        if name != "run_agreement":  # whose pairing has equals
            np.testing.assert_array_equal(values[:5], fewer.by_cluster[name])
            assert name == "size" or more.overall[name] == fewer.overall[name]


@pytest.mark.parametrize("block_entries", [1, 30, 100])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block_entries: int) -> None:
    data = Data()
    whole = data.score()
    monkeypatch.setattr(scores, "_BLOCK_ENTRIES", block_entries)
    assert_same(whole, data.score())


def test_many_clusters_of_few_dims_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_BLOCK_ENTRIES", 2**16)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(4000, 2)).astype(np.float32)
    clusters = generator.integers(2000, size=4000)
    tracemalloc.start()
    measure_silhouette(clusters, features, n_clusters=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # all distances are 64 MB


@pytest.mark.parametrize("scale", [1e-37, 0.1, 1e37])
def test_scaled_features_have_the_same_silhouette(data: Data, scale: float) -> None:
    scaled = (data.features.astype(np.float64) * scale).astype(np.float32)
    found = measure_silhouette(data.clusters, scaled, n_clusters=N_CLUSTERS)
    assert found.overall == pytest.approx(data.score().overall["silhouette"], abs=1e-6)


def test_separated_blobs_have_the_best_scores() -> None:
    clusters, features = blobs()
    quality = score_clusters(
        clusters,
        np.ones(len(clusters), dtype=np.float32),
        features=features,
        neighbors=mine(features),
        n_clusters=4,
        other_runs=[3 - clusters, (clusters + 1) % 4],
    )
    assert quality.overall["silhouette"] > 0.97
    for name, value in quality.overall.items():
        if name != "silhouette":
            assert value == pytest.approx(float(name != "conductance"), abs=1e-12), name


def test_random_clusters_have_an_adjusted_neighbor_agreement_of_exactly_0() -> None:
    clusters = np.array([0, 0, 0, 1, 1, 2])
    generator = np.random.default_rng(0)
    neighbors = np.array(
        [[i, *generator.permutation(np.delete(range(6), i))[:2]] for i in range(6)]
    )
    sizes = np.bincount(clusters)
    found = []
    for dealt in set(permutations(clusters.tolist())):
        agreement = measure_neighbor_agreement(np.array(dealt), neighbors, n_clusters=3)
        adjusted = adjust_neighbor_agreement(agreement, sizes)
        found.append([adjusted.overall, *adjusted.by_cluster])
    np.testing.assert_allclose(np.mean(found, axis=0), 0.0, atol=1e-12)


@pytest.mark.parametrize("shares", [[0.25, 0.25, 0.25, 0.25], [0.85, 0.05, 0.05, 0.05]])
def test_random_clusters_have_adjusted_scores_of_about_0(shares: list[float]) -> None:
    generator = np.random.default_rng(0)
    _, features = blobs(n_each=1500)
    one, other = generator.choice(4, p=shares, size=(2, 6000))
    quality = score_clusters(
        one,
        np.ones(6000, dtype=np.float32),
        features=features,
        neighbors=mine(features),
        n_clusters=4,
        other_runs=[other],
    )
    for name, score in SCORES.items():
        if score.is_adjusted:
            assert abs(quality.overall[name]) < 0.03, name


def test_one_cluster_of_all_images_says_nothing(data: Data) -> None:
    together = np.zeros_like(data.clusters)
    quality = data.score(clusters=together, other_runs=[together])
    expected = {
        "neighbor_agreement": 1.0,
        "neighbor_agreement_adjusted": 0.0,
        "conductance": 1.0,
        "isolation": 0.0,
        "silhouette": -1.0,
    }
    for name, value in expected.items():
        assert_is(quality, name, [value, value, *[np.nan] * 6])
    assert quality.overall["balance"] == 0
    assert quality.overall["run_kappa"] == quality.overall["run_ari"] == 1
    against = data.score(clusters=together).overall
    assert against["run_ari"] < 0.5


def test_images_that_are_clusters_by_themselves_have_no_merit() -> None:
    data = Data(n_images=10)
    alone = np.arange(10)
    overall = data.score(clusters=alone, n_clusters=10, other_runs=[alone[::-1].copy()]).overall
    names = ("neighbor_agreement", "neighbor_agreement_adjusted", "silhouette")
    assert [overall[name] for name in names] == [0, 0, 0]
    assert overall["conductance"] == 1
    assert overall["balance"] == pytest.approx(1.0)
    assert overall["run_ari"] == 1


@pytest.mark.parametrize("split", [1, 3, 11])
def test_copies_of_an_image_in_two_clusters_have_a_silhouette_of_0(split: int) -> None:
    point = np.random.default_rng(0).normal(size=(1, 50)).astype(np.float32)
    copies = np.repeat(point, 30, axis=0)
    clusters = (np.arange(30) >= split).astype(np.int64)
    found = measure_silhouette(clusters, copies, n_clusters=2)
    assert found.overall == 0
    assert (found.by_cluster == 0).all()


def test_a_cluster_of_copies_far_from_others_has_a_silhouette_of_1() -> None:
    copies = np.repeat(np.eye(2, dtype=np.float32), 7, axis=0)
    found = measure_silhouette(np.repeat([0, 1], 7), copies, n_clusters=2)
    np.testing.assert_allclose(found.by_cluster, 1.0, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_within_their_range(seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = Data(seed, n_images=int(generator.integers(6, 40)), n_neighbors=1 + seed % 3)
    data.clusters[data.clusters > seed % 4] = 0
    data.features[::3] = data.features[0]
    quality = data.score()
    for name, value in quality.overall.items():
        assert SCORES[name].low - 1e-12 <= value <= SCORES[name].high, name
    for name, values in quality.by_cluster.items():
        used = values[:1]
        assert (SCORES[name].low - 1e-12 <= used).all(), name
        assert (used <= SCORES[name].high + 1e-12).all(), name


def test_a_large_cluster_without_neighbors_in_it_is_far_below_chance() -> None:
    clusters = np.array([1, *[0] * 9])
    neighbors = np.column_stack([np.arange(10), np.where(clusters == 1, 1, 0)])
    agreement = measure_neighbor_agreement(clusters, neighbors, n_clusters=2)
    adjusted = adjust_neighbor_agreement(agreement, np.array([9, 1]))
    assert adjusted.overall == pytest.approx(-4.0)  # 0.8 by chance
    np.testing.assert_allclose(adjusted.by_cluster, [-8.0, 0.0], atol=1e-12)
    isolation = measure_conductance(clusters, neighbors, n_clusters=2)[1]
    np.testing.assert_allclose(isolation.by_cluster, -1.0, atol=1e-12)


def test_without_other_runs_nothing_is_said_of_runs(data: Data) -> None:
    quality = data.score(other_runs=())
    assert not [name for name in (*quality.overall, *quality.by_cluster) if "run" in name]
    named = {*quality.overall, *quality.by_cluster, *data.score().overall}
    assert named == set(SCORES)


@pytest.mark.parametrize("n_clusters", range(1, 40))
def test_equal_sizes_have_a_balance_of_1(n_clusters: int) -> None:
    balance = measure_balance(np.full(n_clusters, 3))
    assert 1 - 1e-12 < balance <= 1


def test_a_partition_agrees_with_itself_renumbered(data: Data) -> None:
    found = compare_partitions(data.clusters, (data.clusters + 2) % N_CLUSTERS, n_clusters=7)
    assert found == (1.0, 1.0, 1.0)


def test_a_clustering_that_ignores_the_images_is_stable_and_a_random_one_is_not() -> None:
    truth = blobs()[0]
    asked = []

    def always(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        asked.append(rows)
        return truth if len(asked) % 2 else 3 - truth

    assert measure_stability(always, n_images=120, n_clusters=4, n_resamplings=3) == (1, 1, 1)
    assert len(asked) == 6
    for one, other in zip(asked[::2], asked[1::2], strict=True):
        assert (np.diff(one) > 0).all()
        assert (np.diff(other) > 0).all()
        assert sorted([*one, *other]) == list(range(120))
    assert (asked[0] != asked[2]).any()

    generator = np.random.default_rng(0)
    found = measure_stability(
        lambda rows: generator.integers(4, size=2 * len(rows)), n_images=5000, n_clusters=4
    )
    assert abs(found.ari) < 0.01
    assert abs(found.kappa) < 0.05


def test_the_seed_draws_the_halves() -> None:
    def parity(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.isin(np.arange(50), rows).astype(np.int64) * (np.arange(50) < 20)

    one, again, other = (
        measure_stability(parity, n_images=50, n_clusters=2, seed=seed) for seed in (0, 0, 1)
    )
    assert one == again != other


def quality_of(**overall: float) -> Quality:
    return Quality(overall, {})


def test_combined_ranks_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    table = generator.integers(4, size=(9, 3)) / 4.0  # with ties
    names = ("silhouette", "conductance", "run_ari")
    qualities = [quality_of(**dict(zip(names, row, strict=True))) for row in table.tolist()]
    expected = []
    for one in qualities:
        beaten = 0.0
        for name in names:
            sign = -1 if name == "conductance" else 1
            for other in qualities:
                gain = sign * (one.overall[name] - other.overall[name])
                beaten += (gain > 0) + 0.5 * (gain == 0 and other is not one)
        expected.append(beaten / (3 * 8))
    np.testing.assert_allclose(combine(qualities, names=names), expected, atol=1e-9)


def test_the_best_by_all_scores_has_1_and_the_worst_0() -> None:
    values = (0.2, 0.9, 0.5)
    qualities = [quality_of(neighbor_agreement_adjusted=v, silhouette=v - 1) for v in values]
    assert combine(qualities).tolist() == [0.0, 1.0, 0.5]
    assert combine(qualities[:1]).tolist() == [0.0]
    assert combine(qualities[:1] * 3).tolist() == [0.5, 0.5, 0.5]


REFUSED: list[tuple[Callable[[Data], dict[str, Any]], str]] = [
    (lambda _: {"n_clusters": 0}, "n_clusters must be at least 1, got 0"),
    (lambda d: {"clusters": d.clusters[:, None]}, r"got int64 of shape \(60, 1\)"),
    (lambda d: {"clusters": d.clusters[:0]}, r"at least one, got int64 of shape \(0,\)"),
    (lambda d: {"clusters": d.clusters.astype(float)}, "clusters must be integers .* got float64"),
    (lambda d: {"clusters": d.clusters + 3}, "below n_clusters=7, got 3 to 7"),
    (lambda d: {"clusters": d.clusters - 1}, "at least 0 .* got -1 to 3"),
    (lambda d: {"confidence": d.confidence[1:]}, r"shape \(n=60,\), got \(59,\)"),
    (lambda d: {"confidence": d.confidence + 1}, r"confidence must be in \[0, 1\], got 1\."),
    (lambda d: {"confidence": d.confidence * np.nan}, "got nan to nan"),
    (lambda d: {"neighbors": d.neighbors[1:]}, r"\(n=60, k\), got int64 of shape \(59, 5\)"),
    (lambda d: {"neighbors": d.neighbors[:, 0]}, r"got int64 of shape \(60,\)"),
    (lambda d: {"neighbors": d.neighbors * 1.0}, "neighbors must be integers .* got float64"),
    (lambda d: {"neighbors": d.neighbors[:, :1]}, r"another image .* got shape \(60, 1\)"),
    (lambda d: {"neighbors": d.neighbors + 1}, "below n=60, got 1 to 60"),
    (lambda d: {"neighbors": d.neighbors - 1}, "at least 0 and below n=60, got -1 to 58"),
    (lambda d: {"neighbors": d.neighbors[::-1]}, "each image itself in column 0"),
    (lambda d: {"features": d.features[1:]}, r"\(n=60, d\), got float32 of shape \(59, 3\)"),
    (lambda d: {"features": d.features[:, 0]}, r"got float32 of shape \(60,\)"),
    (lambda d: {"features": d.features.astype(int)}, "features must be floats .* got int64"),
    (lambda d: {"features": d.features[:, :0]}, "got 60 rows that are not, the first is row 0"),
    (lambda d: {"features": np.where(d.clusters[:, None] == 4, 0.0, d.features)}, "is row 59"),
    (lambda d: {"features": np.where(d.clusters[:, None] == 4, np.inf, d.features)}, "row 59"),
    (lambda d: {"features": np.where(d.clusters[:, None] == 4, np.nan, d.features)}, "row 59"),
    (lambda d: {"other_runs": [d.clusters[1:]]}, "runs must be of the same images, got 60 and 59"),
    (lambda d: {"other_runs": [d.clusters + 3]}, "below n_clusters=7, got 3 to 7"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_is_wrong_is_refused(change: Callable[[Data], dict[str, Any]], message: str) -> None:
    data = Data()
    with pytest.raises(ValueError, match=message):
        data.score(**change(data))


def test_each_score_refuses_by_itself() -> None:
    data = Data()
    beyond = {"n_clusters": 4}
    with pytest.raises(ValueError, match="below n_clusters=4, got 0 to 4"):
        measure_neighbor_agreement(data.clusters, data.neighbors, **beyond)
    with pytest.raises(ValueError, match="below n_clusters=4, got 0 to 4"):
        measure_conductance(data.clusters, data.neighbors, **beyond)
    with pytest.raises(ValueError, match="below n_clusters=4, got 0 to 4"):
        measure_silhouette(data.clusters, data.features, **beyond)
    with pytest.raises(ValueError, match="below n=60, got 1 to 60"):
        measure_conductance(data.clusters, data.neighbors + 1, n_clusters=5)


def test_too_few_runs_are_refused() -> None:
    clusters = np.array([0, 1])
    with pytest.raises(ValueError, match="runs must be at least 2, got 1"):
        compare_runs([clusters], n_clusters=2)
    with pytest.raises(ValueError, match="at least 1 run, got 0"):
        find_run_agreement(clusters, [], n_clusters=2)
    with pytest.raises(ValueError, match="of the same images, got 2 and 1"):
        compare_partitions(clusters, clusters[1:], n_clusters=2)


def test_a_stability_that_cannot_be_measured_is_refused() -> None:
    def short(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows

    with pytest.raises(ValueError, match="n_images must be at least 2, got 1"):
        measure_stability(short, n_images=1, n_clusters=2)
    with pytest.raises(ValueError, match="n_resamplings must be at least 1, got 0"):
        measure_stability(short, n_images=4, n_clusters=2, n_resamplings=0)
    with pytest.raises(ValueError, match=r"the shape \(n=4,\), got \(2,\)"):
        measure_stability(short, n_images=4, n_clusters=2)
    with pytest.raises(ValueError, match="below n_clusters=2, got 3 to 3"):
        measure_stability(lambda _: np.full(4, 3), n_images=4, n_clusters=2)


def test_scores_that_cannot_be_combined_are_refused() -> None:
    one = quality_of(silhouette=0.5)
    with pytest.raises(ValueError, match="at least 1 each, got 0 and 2"):
        combine([])
    with pytest.raises(ValueError, match="at least 1 each, got 1 and 0"):
        combine([one], names=())
    with pytest.raises(ValueError, match="higher or lower is better: balance"):
        combine([one], names=("balance",))
    with pytest.raises(ValueError, match="higher or lower is better: purity"):
        combine([one], names=("purity",))
    with pytest.raises(ValueError, match="score run_ari, got one without it"):
        combine([one], names=("silhouette", "run_ari"))
