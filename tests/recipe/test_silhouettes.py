import numpy as np
import pytest
from numpy.typing import NDArray

from unic.recipe.silhouettes import centroid_silhouette


def unit_points(n_images: int = 60, n_dims: int = 5) -> NDArray[np.float32]:
    points = np.random.default_rng(0).normal(size=(n_images, n_dims))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def random_clusters(n_clusters: int, n_images: int = 60) -> NDArray[np.int64]:
    """No cluster is empty."""
    return np.random.default_rng(1).permutation(np.arange(n_images) % n_clusters)


def nearest_axes(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Compact clusters."""
    return np.abs(points).argmax(axis=1) * 2 + (
        points[np.abs(points) == np.abs(points).max(1)[:, None]] > 0
    )


def reference_silhouette(points: NDArray[np.float32], clusters: NDArray[np.int64]) -> float:
    means = {
        cluster: points[clusters == cluster].astype(np.float64).mean(axis=0)
        for cluster in set(clusters.tolist())
    }
    total = 0.0
    for point, own in zip(points.astype(np.float64), clusters.tolist(), strict=True):
        distances = {c: np.sqrt(((point - mean) ** 2).sum()) for c, mean in means.items()}
        a = distances.pop(own)
        b = min(distances.values())
        total += (b - a) / max(a, b)
    return total / len(points)


@pytest.mark.parametrize("n_clusters", [2, 3, 10, 59])
def test_equals_plain_loops(n_clusters: int) -> None:
    points, clusters = unit_points(), random_clusters(n_clusters)
    found = centroid_silhouette(points, clusters, n_clusters)
    assert found == pytest.approx(reference_silhouette(points, clusters), abs=1e-3)


def test_equals_plain_loops_where_clusters_are_compact() -> None:
    points = unit_points(400)
    clusters = nearest_axes(points)
    found = centroid_silhouette(points, clusters, 10)
    assert found == pytest.approx(reference_silhouette(points, clusters), abs=1e-5)
    assert found > 0.2


# Laws


def test_empty_clusters_do_not_count() -> None:
    points, clusters = unit_points(), random_clusters(4)
    spread = np.array([1, 4, 5, 8])[clusters]
    expected = centroid_silhouette(points, clusters, 4)
    assert centroid_silhouette(points, spread, 11) == pytest.approx(expected, abs=1e-7)


def test_names_of_clusters_and_the_order_of_images_do_not_matter() -> None:
    points, clusters = unit_points(), random_clusters(5)
    expected = centroid_silhouette(points, clusters, 5)
    renamed = np.array([3, 0, 4, 1, 2])[clusters]
    assert centroid_silhouette(points, renamed, 5) == pytest.approx(expected, abs=1e-6)
    order = np.random.default_rng(2).permutation(60)
    assert centroid_silhouette(points[order], clusters[order], 5) == pytest.approx(
        expected, abs=1e-6
    )


def test_duplicates_of_all_images_change_nothing() -> None:
    points, clusters = unit_points(), random_clusters(5)
    twice = centroid_silhouette(np.repeat(points, 2, axis=0), np.repeat(clusters, 2), 5)
    assert twice == pytest.approx(centroid_silhouette(points, clusters, 5), abs=1e-6)


def test_a_constant_dim_and_a_rotation_change_nothing() -> None:
    points, clusters = unit_points(), random_clusters(5)
    expected = centroid_silhouette(points, clusters, 5)
    wider = np.insert(points, 2, 0.0, axis=1)
    assert centroid_silhouette(wider, clusters, 5) == pytest.approx(expected, abs=1e-6)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0].astype(np.float32)
    assert centroid_silhouette(points @ rotation, clusters, 5) == pytest.approx(expected, abs=1e-5)


def test_distinct_places_of_many_duplicates_are_as_compact_as_can_be() -> None:
    places, clusters = unit_points(6), np.repeat(np.arange(6), 20)
    found = centroid_silhouette(places[clusters], clusters, 6)
    assert found == pytest.approx(1.0, abs=2e-3)  # distances are differences of numbers near 1


def test_true_clusters_beat_mixed_and_split_ones() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(90) % 3
    points = (np.eye(3, 8)[truth] + rng.normal(scale=0.1, size=(90, 8))).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    best = centroid_silhouette(points, truth, 3)
    assert best > 0.6
    assert best > centroid_silhouette(points, truth + 3 * (np.arange(90) < 45), 6) + 0.3
    assert best > centroid_silhouette(points, np.minimum(truth, 1), 2) + 0.1
    assert centroid_silhouette(points, rng.permutation(truth), 3) < 0.1


def test_the_sizes_of_distant_clusters_do_not_matter() -> None:
    places = np.eye(3, dtype=np.float32)
    for sizes in ([30, 30, 30], [300, 30, 1]):
        clusters = np.repeat(np.arange(3), sizes)
        assert centroid_silhouette(places[clusters], clusters, 3) == pytest.approx(1.0, abs=1e-6)


def test_one_cluster_of_all_is_the_worst() -> None:
    assert centroid_silhouette(unit_points(), np.full(60, 2), 4) == -1.0


def test_every_image_by_itself_is_at_its_mean() -> None:
    assert centroid_silhouette(unit_points(8), np.arange(8), 8) == pytest.approx(1.0, abs=2e-3)


def test_leaves_its_inputs_alone() -> None:
    points, clusters = unit_points(), random_clusters(5)
    before = points.tobytes(), clusters.tobytes()
    centroid_silhouette(points, clusters, 5)
    assert before == (points.tobytes(), clusters.tobytes())


# Refusals


def test_refuses_negative_clusters() -> None:
    with pytest.raises(ValueError, match="negative"):
        centroid_silhouette(unit_points(4), np.array([0, 1, -1, 0]), 2)


def test_refuses_clusters_of_other_images() -> None:
    with pytest.raises((ValueError, IndexError), match=r"broadcast|bounds"):
        centroid_silhouette(unit_points(4), np.array([0, 1, 0]), 2)
