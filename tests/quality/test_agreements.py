from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.quality.references import best_matching, draw_clusters, rand_index
from unic.quality.agreements import (
    Agreement,
    compare_partitions,
    compare_runs,
    find_run_agreement,
    measure_stability,
)

Ints = NDArray[np.int64]
EXACT = 1e-9


def similar(clusters: Ints, n_clusters: int, seed: int) -> Ints:
    """Other numbers, and a third of the images elsewhere."""
    rng = np.random.default_rng(seed)
    moved = np.where(rng.random(len(clusters)) < 0.3, rng.permutation(clusters), clusters)
    return rng.permutation(n_clusters)[moved]


@pytest.mark.parametrize("n_clusters", [2, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_equals_plain_loops(n_clusters: int, seed: int) -> None:
    one = draw_clusters(n_clusters, seed=seed)
    for other in (draw_clusters(n_clusters, seed=seed + 10), similar(one, n_clusters, seed)):
        found = compare_partitions(one, other, n_clusters=n_clusters)
        accuracy = best_matching(one, other, n_clusters)[0]
        assert found.accuracy == pytest.approx(accuracy, abs=EXACT)
        assert found.ari == pytest.approx(rand_index(one, other), abs=EXACT)


def test_kappa_equals_plain_loops_where_one_pairing_is_best() -> None:
    one = draw_clusters(4, n_images=200)
    other = similar(one, 4, 0)
    accuracy, matching = best_matching(one, other, 4)
    chance = sum((one == matching[c]).mean() * (other == c).mean() for c in range(4))
    found = compare_partitions(one, other, n_clusters=4)
    assert found.kappa == pytest.approx((accuracy - chance) / (1 - chance), abs=EXACT)
    assert 0.5 < found.kappa < found.accuracy < 0.9


def test_ari_equals_that_of_scikit_learn() -> None:
    from sklearn.metrics import adjusted_rand_score

    for seed in range(20):
        one, other = draw_clusters(5, seed=seed), draw_clusters(3, seed=seed + 50)
        found = compare_partitions(one, other, n_clusters=5).ari
        assert found == pytest.approx(adjusted_rand_score(one, other), abs=EXACT)


def test_runs_agree_as_their_pairs_do_in_the_mean() -> None:
    runs = [draw_clusters(3, seed=seed) for seed in range(4)]
    found = compare_runs(runs, n_clusters=3)
    pairs = [compare_partitions(*pair, n_clusters=3) for pair in combinations(runs, 2)]
    assert len(pairs) == 6
    np.testing.assert_allclose(found, np.mean(pairs, axis=0), atol=EXACT)


def test_run_agreement_equals_plain_loops() -> None:
    clusters = draw_clusters(4, n_images=100)
    others = [similar(clusters, 4, seed) for seed in range(3)]
    expected = np.zeros(100)
    for other in others:
        matching = np.array(best_matching(clusters, other, 4)[1])
        for image in range(100):
            expected[image] += matching[other[image]] == clusters[image]
    found = find_run_agreement(clusters, others, n_clusters=4)
    np.testing.assert_allclose(found, expected / 3, atol=EXACT)
    assert set(np.round(found * 3)) == {0.0, 1.0, 2.0, 3.0}


# Laws


def test_numbers_of_clusters_do_not_matter() -> None:
    clusters = draw_clusters(7)
    renamed = np.random.default_rng(0).permutation(7)[clusters]
    assert compare_partitions(clusters, renamed, n_clusters=7) == Agreement(1.0, 1.0, 1.0)
    assert (find_run_agreement(clusters, [renamed, clusters], n_clusters=7) == 1.0).all()


def test_is_symmetric() -> None:
    one, other = draw_clusters(5), draw_clusters(5, seed=2)
    found = compare_partitions(one, other, n_clusters=5)
    swapped = compare_partitions(other, one, n_clusters=5)
    assert (found.accuracy, found.ari) == pytest.approx((swapped.accuracy, swapped.ari), abs=EXACT)


@pytest.mark.parametrize("n_clusters", [2, 10, 50])
def test_chance_gives_zero(n_clusters: int) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(n_clusters))
    one, other = rng.choice(n_clusters, size=(2, 200_000), p=shares)
    found = compare_partitions(one, other, n_clusters=n_clusters)
    assert found.kappa == pytest.approx(0.0, abs=0.01)
    assert found.ari == pytest.approx(0.0, abs=0.01)


def test_one_cluster_of_all_agrees_with_itself_and_says_nothing_of_others() -> None:
    alone, clusters = np.zeros(60, dtype=np.int64), draw_clusters(3)
    assert compare_partitions(alone, alone + 2, n_clusters=3) == Agreement(1.0, 1.0, 1.0)
    found = compare_partitions(alone, clusters, n_clusters=3)
    assert (found.kappa, found.ari) == pytest.approx((0.0, 0.0), abs=EXACT)


def test_a_single_image_agrees() -> None:
    one = np.zeros(1, dtype=np.int64)
    assert compare_partitions(one, one + 1, n_clusters=2) == Agreement(1.0, 1.0, 1.0)


# Stability


def test_what_is_learned_from_any_half_is_stable() -> None:
    truth = np.arange(100) % 4
    sizes = []

    def cluster(rows: Ints) -> Ints:
        sizes.append(len(rows))
        assert (np.diff(rows) > 0).all()
        return np.roll(np.arange(4), len(sizes))[truth]  # another numbering every time

    found = measure_stability(cluster, n_images=100, n_clusters=4, n_resamplings=3)
    assert found == Agreement(1.0, 1.0, 1.0)
    assert sizes == [50] * 6


def test_halves_have_no_image_in_common_and_leave_none_out() -> None:
    given: list[Ints] = []

    def cluster(rows: Ints) -> Ints:
        given.append(rows)
        return np.zeros(31, dtype=np.int64)

    measure_stability(cluster, n_images=31, n_clusters=2, n_resamplings=2)
    assert not np.array_equal(given[0], given[2])
    for one, other in (given[:2], given[2:]):
        assert sorted([*one, *other]) == list(range(31))


def test_random_clusters_are_not_stable() -> None:
    rng = np.random.default_rng(0)
    found = measure_stability(
        lambda _: rng.integers(5, size=20_000), n_images=20_000, n_clusters=5, n_resamplings=3
    )
    assert found.kappa == pytest.approx(0.0, abs=0.02)
    assert found.ari == pytest.approx(0.0, abs=0.02)


def test_the_same_seed_gives_the_same_halves() -> None:
    def cluster(rows: Ints) -> Ints:
        return np.isin(np.arange(50), rows).astype(np.int64)

    one, same, other = (
        measure_stability(lambda rows: cluster(rows[:20]), n_images=50, n_clusters=2, seed=seed)
        for seed in (3, 3, 4)
    )
    assert one == same
    assert one.ari < 0.5
    assert other.accuracy == one.accuracy  # 20 and 20 of 50, apart in any halves


# Refusals


def test_refuses_partitions_of_other_images() -> None:
    with pytest.raises(ValueError, match="runs must be of the same images, got 60 and 59"):
        compare_partitions(draw_clusters(3), draw_clusters(3)[:-1], n_clusters=3)


def test_refuses_clusters_out_of_range() -> None:
    clusters = draw_clusters(3)
    with pytest.raises(ValueError, match="below n_clusters=3, got 0 to 3"):
        find_run_agreement(clusters, [np.where(clusters == 1, 3, clusters)], n_clusters=3)
    with pytest.raises(ValueError, match=r"clusters must be at least 0 .* got -1 to 2"):
        compare_partitions(np.where(clusters == 1, -1, clusters), clusters, n_clusters=3)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="runs must be at least 2, got 1"):
        compare_runs([draw_clusters(3)], n_clusters=3)
    with pytest.raises(ValueError, match="other_runs must hold at least 1 run, got 0"):
        find_run_agreement(draw_clusters(3), [], n_clusters=3)


def test_refuses_to_halve_too_little() -> None:
    def cluster(rows: Ints) -> Ints:
        return np.zeros(len(rows), dtype=np.int64)

    with pytest.raises(ValueError, match="n_images must be at least 2, got 1"):
        measure_stability(cluster, n_images=1, n_clusters=2)
    with pytest.raises(ValueError, match="n_resamplings must be at least 1, got 0"):
        measure_stability(cluster, n_images=10, n_clusters=2, n_resamplings=0)
    with pytest.raises(ValueError, match=r"cluster must return the shape \(n=10,\), got \(5,\)"):
        measure_stability(cluster, n_images=10, n_clusters=2)
