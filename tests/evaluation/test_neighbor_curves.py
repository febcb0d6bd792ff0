import numpy as np
import pytest
from numpy.typing import NDArray

from tests.rank_reference import clustered_features, duplicated_features, ranks
from unic.evaluation import neighbor_curves
from unic.evaluation.groups import Groups
from unic.evaluation.neighbor_curves import (
    RankAgreement,
    measure_neighbors,
    measure_rank_agreement,
    share_alike,
    shorter_list,
    sweep_union_sizes,
    tabulate_ranks,
)

N_IMAGES, N_NEIGHBORS = 90, 7
FEATURES = clustered_features(N_IMAGES, 5, n_clusters=6)
GROUPS = np.random.default_rng(3).integers(4, size=N_IMAGES)
INDICES = np.argsort(ranks(FEATURES), axis=1)[:, :N_NEIGHBORS]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def count_unions(indices: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.array([len(set(indices[row].ravel())) for row in indices], dtype=np.int32)


# Neighbors


def test_shares_are_those_of_a_count_one_by_one() -> None:
    expected = [
        sum(GROUPS[other] == GROUPS[row] for other in INDICES[row, 1:]) / (N_NEIGHBORS - 1)
        for row in range(N_IMAGES)
    ]
    np.testing.assert_allclose(share_alike(GROUPS, INDICES), expected)


def test_an_image_without_neighbors_is_refused() -> None:
    with pytest.raises(ValueError, match="another image beside each image"):
        share_alike(GROUPS, INDICES[:, :1])


def test_a_sweep_is_that_of_every_threshold_by_itself() -> None:
    unions, alike = count_unions(INDICES), share_alike(GROUPS, INDICES)
    table = sweep_union_sizes(unions, alike)
    assert table["max_union_size"].tolist() == sorted(set(unions.tolist()))
    for row in table.to_dict("records"):
        is_kept = unions <= row["max_union_size"]
        assert row["kept"] == pytest.approx(is_kept.mean())
        assert row["removed"] == pytest.approx(1 - is_kept.mean())
        assert row["alike"] == pytest.approx(alike[is_kept].mean())
    assert table["kept"].iloc[-1] == 1.0
    assert table["kept"].is_monotonic_increasing


@pytest.mark.parametrize("n_values", [0, 3])
def test_a_sweep_of_other_images_is_refused(n_values: int) -> None:
    with pytest.raises(ValueError, match=r"of one shape \(n,\), n > 0"):
        sweep_union_sizes(np.zeros(n_values, dtype=np.int32), np.zeros(n_values + n_values % 2))


# Ranks


@pytest.mark.parametrize("features", [FEATURES, duplicated_features(N_IMAGES, 3)])
def test_agreement_by_rank_is_that_of_full_sorts(features: NDArray[np.float32]) -> None:
    found = measure_rank_agreement(features, GROUPS, generator=generator())
    expected = np.zeros(N_IMAGES - 1)
    for row, rank in enumerate(ranks(features)):
        order = np.argsort(rank)
        expected += GROUPS[order[1:]] == GROUPS[row]
    np.testing.assert_allclose(found.share, expected / N_IMAGES)
    assert found.n_anchors == N_IMAGES
    same = [(group == GROUPS).sum() - 1 for group in GROUPS]
    assert found.by_chance == pytest.approx(np.mean(same) / (N_IMAGES - 1))


def test_a_sample_of_anchors_is_ranked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_rank_agreement(FEATURES, GROUPS, generator=generator(5), n_anchors=20)
    anchors = generator(5).choice(N_IMAGES, size=20, replace=False)
    order = np.argsort(ranks(FEATURES)[anchors], axis=1)[:, 1:]
    np.testing.assert_allclose(found.share, (GROUPS[order] == GROUPS[anchors, None]).mean(axis=0))
    monkeypatch.setattr(neighbor_curves, "_PAIRS", 3 * N_IMAGES)  # in blocks of three anchors
    again = measure_rank_agreement(FEATURES, GROUPS, generator=generator(5), n_anchors=20)
    np.testing.assert_array_equal(again.share, found.share)


@pytest.mark.parametrize(
    ("n_images", "n_groups", "n_anchors", "message"),
    [
        (1, 1, 1, "at least 2, got 1"),
        (9, 8, 1, r"groups of shape \(8,\)"),
        (9, 9, 0, "n_anchors must be at least 1, got 0"),
    ],
)
def test_wrong_ranks_are_refused(
    n_images: int, n_groups: int, n_anchors: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure_rank_agreement(
            FEATURES[:n_images], GROUPS[:n_groups], generator=generator(), n_anchors=n_anchors
        )


@pytest.mark.parametrize("n_ranks", [1, 2, 10, 11, 57])
@pytest.mark.parametrize("n_single", [0, 3, 10, 100])
def test_a_table_of_ranks_covers_each_rank_once(n_ranks: int, n_single: int) -> None:
    share = generator().random(n_ranks)
    table = tabulate_ranks(RankAgreement(share, 5, 0.1), n_single=n_single, n_bins=4)
    covered = []
    for row in table.to_dict("records"):
        first, last = int(row["first_rank"]), int(row["last_rank"])
        covered += range(first, last + 1)
        assert row["share"] == pytest.approx(share[first - 1 : last].mean())
    assert covered == list(range(1, n_ranks + 1))
    single = min(n_single, n_ranks)
    assert len(table) <= single + 4
    assert table["last_rank"].tolist()[:single] == list(range(1, single + 1))


# All of it


def test_a_shorter_list_is_compared_with_all_neighbors() -> None:
    unions = count_unions(INDICES)
    curves = measure_neighbors(
        FEATURES,
        INDICES,
        unions,
        Groups(GROUPS, "class"),
        metric="euclidean",
        far_rank=30,
        max_union_size=12,
        experiment="toy",
    )
    shorter = shorter_list(N_NEIGHBORS)
    assert shorter == 3
    for n_neighbors in (shorter, N_NEIGHBORS):
        lists = np.ascontiguousarray(INDICES[:, :n_neighbors])
        expected = sweep_union_sizes(count_unions(lists), share_alike(GROUPS, lists))
        for table, columns in (
            (curves.removed, ["max_union_size", "removed"]),
            (curves.purity, ["removed", "alike"]),
        ):
            found = table[table["n_neighbors"] == n_neighbors]
            np.testing.assert_allclose(found[columns], expected[columns])
    np.testing.assert_allclose(curves.thresholds, expected[["max_union_size", "kept", "alike"]])
    assert curves.facts == {
        "experiment": "toy",
        "kind": "class",
        "n_images": N_IMAGES,
        "n_neighbors": N_NEIGHBORS,
        "far_rank": 30,
        "max_union_size": 12,
        "n_anchors": N_IMAGES,
        "n_single": N_IMAGES - 1,
        "by_chance": curves.facts["by_chance"],
    }
    assert len(curves.ranks) == N_IMAGES - 1


def test_ranks_are_those_of_the_metric() -> None:
    scaled = FEATURES * generator().uniform(1, 9, size=(N_IMAGES, 1)).astype(np.float32)
    unit = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)
    tables = [
        measure_neighbors(
            features,
            INDICES,
            count_unions(INDICES),
            Groups(GROUPS, "cluster"),
            metric=metric,
            far_rank=30,
            max_union_size=12,
            experiment="toy",
        ).ranks
        for features, metric in ((scaled, "cosine"), (unit, "euclidean"))
    ]
    np.testing.assert_array_equal(*tables)
