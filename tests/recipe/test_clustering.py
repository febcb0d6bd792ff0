import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.baselines.blobs import (
    assert_finds_three_blobs,
    is_same_partition,
    rank,
    run,
    three_blobs,
    with_features,
)
from unic.baselines.methods import MethodInputs
from unic.baselines.spectral import join_neighbors
from unic.recipe.clustering import (
    N_DISCOVERED,
    N_KEPT,
    Consensus,
    Quality,
    Space,
    _find_neighbors,
    balances_to_try,
    cluster,
    draw_sample,
    fit,
    judge_heads,
    judge_partitions,
    prefers_balance,
)
from unic.recipe.heads import Heads, measure_fit, start_heads
from unic.recipe.silhouettes import centroid_silhouette


def unequal_blobs(*sizes: int) -> tuple[MethodInputs, dict[str, NDArray[np.int64]]]:
    """Blobs of these many training images, and 20 new images of each."""
    rng = np.random.default_rng(0)
    truth = {
        "train": rng.permutation(np.repeat(np.arange(len(sizes)), sizes)),
        "test": rng.permutation(np.arange(20 * len(sizes)) % len(sizes)),
    }
    points = {
        split: (
            10.0 * np.eye(len(sizes), 12)[own] + rng.normal(scale=0.5, size=(len(own), 12))
        ).astype(np.float32)
        for split, own in truth.items()
    }
    return with_features(points["train"], points["test"]), truth


def unit_points(n_images: int = 40, n_dims: int = 5) -> NDArray[np.float32]:
    points = np.random.default_rng(0).normal(size=(n_images, n_dims))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def space_of(points: NDArray[np.float32]) -> Space:
    neighbors = rank(points, 6)
    graphs = dict.fromkeys(("main", "plain"), join_neighbors(neighbors))
    half = points * np.float32([1, 1, 1, 2, 2])
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    spaces = {"main": points, "half": half, "plain": points}
    return Space(np.arange(len(points)), spaces, graphs, neighbors[:, 1:])


def consensus_of(silhouette: float, disagreement: float) -> Consensus:
    heads = Heads(torch.zeros(1, 2, 3), torch.zeros(1, 2))
    orders = np.zeros((1, 2), dtype=np.int64)
    return Consensus(heads, orders, torch.zeros(4, 2), False, silhouette, disagreement)


def test_costs_equal_what_is_written() -> None:
    quality = Quality(np.array([0.5, 0.1, -0.3]), np.array([0.2, 0.0, 1.0]), np.array([0, 0.4, 2]))
    expected = [-np.log(0.5) + 0.4, -np.log(0.1), -np.log(1e-6) + 2.0]
    np.testing.assert_allclose(quality.cost(), expected, rtol=1e-12)
    np.testing.assert_allclose(quality.balanced_cost(), [0.2, 0.4, 3.0], rtol=1e-12)


def test_partitions_are_judged_by_the_heads_that_start_from_them() -> None:
    space = space_of(unit_points())
    partitions = np.random.default_rng(1).integers(3, size=(4, 40))
    found = judge_partitions(space, partitions, start_heads(space.points["main"], partitions, 3))
    for row, clusters in enumerate(partitions):
        points = space.points["main"].astype(np.float64)
        means = np.stack([points[clusters == c].mean(axis=0) for c in range(3)])
        logits = 20.0 * points @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        pairs = [probs[i] @ probs[j] for i in range(40) for j in space.neighbors[i, :4]]
        assert found.disagreement[row] == pytest.approx(-np.log(pairs).mean(), rel=1e-4)
        mean = probs.mean(axis=0)
        assert found.imbalance[row] == pytest.approx(
            np.log(3) + (mean * np.log(mean)).sum(), abs=1e-5
        )
        assert found.silhouette[row] == centroid_silhouette(space.points["half"], clusters, 3)


def test_heads_are_judged_by_their_most_probable_clusters() -> None:
    space = space_of(unit_points())
    partitions = np.random.default_rng(1).integers(3, size=(4, 40))
    probs = start_heads(space.points["main"], partitions, 3).predict(space.points["main"])
    found, fit = judge_heads(space, probs), measure_fit(probs, space.neighbors)
    np.testing.assert_array_equal(found.disagreement, fit.disagreement)
    np.testing.assert_array_equal(found.imbalance, fit.imbalance)
    for head in range(4):
        clusters = np.array([int(row.argmax()) for row in probs[:, head]])
        assert found.silhouette[head] == centroid_silhouette(space.points["half"], clusters, 3)


@pytest.mark.parametrize(
    ("balanced", "expected"),
    [
        ((0.45, 0.31), True),
        ((0.43, 0.1), False),  # less compact
        ((0.6, 0.37), True),
        ((0.6, 0.39), False),  # neighbors are cut apart
    ],
)
def test_equal_sizes_are_taken_where_they_cost_little(
    balanced: tuple[float, float], expected: bool
) -> None:
    assert prefers_balance(consensus_of(0.5, 0.21), consensus_of(*balanced)) is expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], [False, True]),
        ([50], [False, True]),  # one class tells nothing of others
        ([50, 50, 50], [True]),
        ([60, 50, 40], [True]),
        ([100, 50, 10], [False]),
        ([3, 1], [True]),  # so few may differ by chance
        ([0, 40, 0, 41], [True]),  # classes without labels are new
    ],
)
def test_known_labels_tell_whether_sizes_are_equal(counts: list[int], expected: list[bool]) -> None:
    known = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    assert balances_to_try(np.concatenate([known, np.full(30, -1)])) == expected


def test_neighbors_equal_those_of_a_full_sort() -> None:
    points = unit_points()
    np.testing.assert_array_equal(_find_neighbors(points), rank(points, 11)[:, 1:])


# Laws


@pytest.mark.parametrize("sizes", [(300, 30, 10), (60, 60, 60)])
def test_finds_blobs_of_any_sizes_and_where_new_images_lie(sizes: tuple[int, ...]) -> None:
    inputs, truth = unequal_blobs(*sizes)
    found = run(cluster, inputs)
    together = np.concatenate([found[split][0] for split in ("train", "test")])
    assert is_same_partition(together, np.concatenate([truth["train"], truth["test"]]))


def test_finds_blobs_on_a_sample_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unic.recipe.clustering.MAX_SAMPLE", 100)
    assert_finds_three_blobs(cluster)


def test_a_sample_holds_images_of_every_labeled_class() -> None:
    known = np.full(1000, -1)
    known[:300], known[300:304], known[400:420] = 0, 1, 2
    drawn = draw_sample(known, 50, generator=torch.Generator().manual_seed(0))
    assert len(drawn) == 50
    assert (np.diff(drawn) > 0).all()
    counts = np.bincount(known[drawn] + 1)
    assert counts[1] >= 10
    assert counts[2] == 4
    assert counts[3] >= 10
    assert len(draw_sample(known, 12, generator=torch.Generator().manual_seed(0))) == 24


def test_a_sample_without_labels_is_any() -> None:
    drawn = draw_sample(np.full(100, -1), 30, generator=torch.Generator().manual_seed(0))
    expected = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:30].sort().values
    np.testing.assert_array_equal(drawn, expected)


def test_every_image_may_be_a_cluster_of_its_own() -> None:
    inputs = with_features(unit_points(12), unit_points(12))
    clusters, confidence = run(cluster, inputs, 12)["train"]
    assert sorted(clusters.tolist()) == list(range(12))
    assert np.isfinite(confidence).all()


def test_constant_dims_and_a_zero_image_are_clustered_too() -> None:
    inputs, truth = unequal_blobs(30, 30, 30)
    train, test = (np.insert(inputs.features[s], 4, 0.0, axis=1) for s in ("train", "test"))
    train[7] = 0.0
    clusters, _ = run(cluster, with_features(train, test))["train"]
    others = np.arange(90) != 7
    assert is_same_partition(clusters[others], truth["train"][others])
    assert clusters[7] in range(3)


# Refusals


def test_refuses_images_of_one_direction() -> None:
    same = np.ones((20, 4), dtype=np.float32)
    inputs, _ = three_blobs()
    flat = inputs._replace(
        features={"train": same}, neighbors=inputs.neighbors[:20] % 20, known_labels=np.full(20, -1)
    )
    flat.neighbors[:, 0] = np.arange(20)
    with pytest.raises(ValueError, match=r"must differ in direction, got all of one"):
        run(cluster, flat)


def test_two_images_are_enough() -> None:
    features = {"train": np.eye(2, 4, dtype=np.float32)}
    inputs = MethodInputs(features, np.array([[0, 1], [1, 0]]), np.full(2, -1))
    found = cluster(inputs, n_clusters=2, generator=torch.Generator().manual_seed(0), device="cpu")
    assert set(found["train"][0].tolist()) <= {0, 1}


def test_known_labels_are_kept_and_name_their_clusters() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 40)
    points = 10 * np.eye(3, 12)[truth] + 0.5 * generator.normal(size=(120, 12))
    known = np.where((truth < 2) & (np.arange(120) % 4 == 0), 1 - truth, -1)  # names exchanged
    order = np.argsort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)
    inputs = MethodInputs({"train": points.astype(np.float32)}, order[:, :6], known)
    found = cluster(inputs, n_clusters=3, generator=torch.Generator().manual_seed(0), device="cpu")
    assert found["train"][0].tolist() == np.array([1, 0, 2])[truth].tolist()


@pytest.mark.parametrize(
    ("every", "is_discovery"),
    [
        ((2, 2, 0, 0), True),  # of two classes every second image, the others are new
        ((1, 8, 0, 0), False),  # classes of unequal sizes
        ((2, 2, 2, 2), False),  # no class is new
        ((30, 30, 0, 0), False),  # few labels
    ],
)
def test_new_classes_beside_many_labels_are_discovered_from_random_heads(
    every: tuple[int, ...], is_discovery: bool
) -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 100)
    points = 10 * np.eye(4, 12)[truth] + 0.5 * generator.normal(size=(400, 12))
    known = np.full(400, -1)
    for label in np.flatnonzero(every):
        known[100 * label : 100 * label + 100 : every[label]] = label
    fitted = fit(
        points.astype(np.float32),
        known_labels=known,
        n_clusters=4,
        generator=torch.Generator().manual_seed(0),
    )
    assert fitted.model.reads_coordinates == is_discovery
    assert len(fitted.model.heads.weights) == (N_DISCOVERED if is_discovery else N_KEPT)
    found = fitted.model.predict_training().probs.argmax(1).numpy()
    assert (found == truth)[truth < 2].all()
    assert is_same_partition(found, truth)


def test_discovered_clusters_have_the_numbers_of_their_labels() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(12), 20)
    points = 10 * np.eye(12, 16)[truth] + 0.5 * generator.normal(size=(240, 16))
    numbers = np.random.default_rng(1).permutation(12)
    known = np.where((truth < 10) & (np.arange(240) % 20 < 3), numbers[truth], -1)
    fitted = fit(
        points.astype(np.float32),
        known_labels=known,
        n_clusters=12,
        generator=torch.Generator().manual_seed(0),
    )
    assert fitted.model.reads_coordinates
    own = fitted.model.probs.argmax(1).numpy()  # before labeled images are given their label
    assert (own == numbers[truth])[truth < 10].mean() > 0.9
