from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.experiment import N_IMAGES, image_ids, write_run
from unic.inspection.comparison import compare_runs
from unic.inspection.runs import Run, open_run
from unic.storage.files import read_parquet, write_parquet

ROWS = range(N_IMAGES)
ONE = {"train": [row % 4 for row in ROWS], "test": [3]}
OTHER = {"train": [(row % 4 + 1 + (row % 9 == 0)) % 4 for row in ROWS], "test": [0]}
LABELS = {"train": [row % 4 for row in ROWS], "test": [1]}


def open_two(
    folder: Path, one: dict[str, list[int]], other: dict[str, list[int]], n: tuple[int, int]
) -> tuple[Run, Run]:
    runs = [
        open_run(write_run(folder / "results" / name, {0: clusters}, labels=LABELS, n_clusters=k))
        for name, clusters, k in (("one", one, n[0]), ("other", other, n[1]))
    ]
    return runs[0], runs[1]


def best_pairing(one: list[int], other: list[int]) -> tuple[int, ...]:
    """The partner of each of four clusters, by trying all."""
    return max(
        permutations(range(4)),
        key=lambda partner: sum(partner[a] == b for a, b in zip(one, other, strict=True)),
    )


def test_it_is_what_trying_all_pairings_finds(tmp_path: Path) -> None:
    found = compare_runs(*open_two(tmp_path, ONE, OTHER, (4, 4)))
    one, other = [*ONE["train"], *ONE["test"]], [*OTHER["train"], *OTHER["test"]]
    partner = best_pairing(one, other)
    assert found.n_images == N_IMAGES + 1
    assert found.matching["cluster"].tolist() == list(range(4))
    assert found.matching["other"].tolist() == list(partner)
    for row in found.matching.to_dict("records"):
        shared = sum(
            (a, b) == (row["cluster"], row["other"]) for a, b in zip(one, other, strict=True)
        )
        assert row["size"] == one.count(row["cluster"])
        assert row["other_size"] == other.count(row["other"])
        assert (row["n_shared"], row["stayed"]) == (shared, shared / row["size"])
    moved = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if partner[a] != b]
    ids = [*image_ids(), "test/a/x.png"]
    assert found.moved["image_id"].tolist() == [ids[i] for i in moved]
    assert found.moved["from"].tolist() == [one[i] for i in moved]
    assert found.moved["to"].tolist() == [other[i] for i in moved]
    assert found.moved["to_pair"].tolist() == [partner.index(other[i]) for i in moved]
    classes = [*LABELS["train"], *LABELS["test"]]
    assert found.moved["class"].tolist() == [f"class {classes[i]}" for i in moved]
    counts = Counter((one[i], other[i]) for i in moved)
    moves = zip(found.moves["from"], found.moves["to"], strict=True)
    assert {pair: found.moves["n_images"][i] for i, pair in enumerate(moves)} == counts
    assert found.moves["n_images"].is_monotonic_decreasing
    assert found.agreement.accuracy == pytest.approx(1 - len(moved) / len(one))
    assert found.agreement.ari == pytest.approx(adjusted_rand_score(one, other))


def test_scores_are_beside_each_other(tmp_path: Path) -> None:
    one, other = open_two(tmp_path, ONE, OTHER, (4, 4))
    scores = compare_runs(one, other).scores.set_index(["split", "score"])
    for (split, name), row in scores.iterrows():
        for run, column in ((one, "one"), (other, "other")):
            assert row[column] == run.metrics["methods"]["unic"][split][name]["mean"]
    assert ("train", "acc") in scores.index


def test_another_numbering_moves_nothing(tmp_path: Path) -> None:
    renumbered = {split: [(c + 3) % 4 for c in clusters] for split, clusters in ONE.items()}
    found = compare_runs(*open_two(tmp_path, ONE, renumbered, (4, 4)))
    assert (len(found.moved), len(found.moves)) == (0, 0)
    assert found.agreement == (1.0, 1.0, 1.0)
    assert (found.matching["stayed"] == 1).all()


@pytest.mark.parametrize("n_clusters", [(4, 6), (6, 4)])
def test_clusters_may_lack_a_partner(n_clusters: tuple[int, int], tmp_path: Path) -> None:
    found = compare_runs(*open_two(tmp_path, ONE, ONE, n_clusters))
    missing = "cluster" if n_clusters[0] < n_clusters[1] else "other"
    assert found.matching[missing].isna().sum() == 2
    assert len(found.matching) == 6
    assert found.matching["stayed"].isna().sum() == 2
    assert len(found.moved) == 0


def test_images_of_a_cluster_without_a_partner_have_moved(tmp_path: Path) -> None:
    split = {
        "train": [4 if row % 4 == 0 and row < 12 else row % 4 for row in ROWS],
        "test": ONE["test"],
    }
    found = compare_runs(*open_two(tmp_path, ONE, split, (4, 5)))
    assert found.moves[["from", "to", "n_images"]].to_numpy().tolist() == [[0, 4, 3]]
    assert found.moves["to_pair"].isna().all()
    back = compare_runs(*open_two(tmp_path, split, ONE, (5, 4)))
    assert back.moves[["from", "to", "to_pair", "n_images"]].to_numpy().tolist() == [[4, 0, 0, 3]]


def test_images_are_paired_by_their_ids(tmp_path: Path) -> None:
    one, other = open_two(tmp_path, ONE, OTHER, (4, 4))
    expected = compare_runs(one, other)
    shuffled = other.shown.iloc[np.random.default_rng(0).permutation(len(other.shown))]
    found = compare_runs(one, other._replace(predictions={0: shuffled}))
    pd.testing.assert_frame_equal(found.moved, expected.moved)


def test_other_images_are_refused(tmp_path: Path) -> None:
    one = open_run(write_run(tmp_path / "results" / "one", {0: ONE}))
    fewer = {"train": ONE["train"][:30], "test": [0]}
    other = open_run(write_run(tmp_path / "results" / "other", {0: fewer}, n_images=30))
    message = "must be of the same images, but the first has 41, the second 31, and 31 are in both"
    with pytest.raises(ValueError, match=message):
        compare_runs(one, other)


def test_runs_without_truth_have_no_classes(tmp_path: Path) -> None:
    runs = [
        open_run(write_run(tmp_path / "results" / name, {0: clusters}))
        for name, clusters in (("one", ONE), ("other", OTHER))
    ]
    found = compare_runs(*runs)
    assert "class" not in found.moved
    assert set(found.scores["score"]) == {"used_clusters"}
    path = tmp_path / "moved.parquet"
    write_parquet(path, found.moved)  # plain types throughout
    assert len(read_parquet(path)) == len(found.moved)
