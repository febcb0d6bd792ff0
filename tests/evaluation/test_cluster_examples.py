import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from unic.evaluation.cluster_examples import (
    N_CLUSTERS,
    N_IMAGES,
    choose_examples,
    count_old,
    part_of_figure,
)
from unic.evaluation.scores import Truth
from unic.evaluation.summary import Shown

K = 12
N_OF_KIND = N_IMAGES // 3
CLASSES = [f"class {number}" for number in range(K)]


def make_shown(*, labeled: bool = True, n_images: int = 600) -> Shown:
    """Cluster ``c`` is of class ``11 - c``; the more images are wrong, the higher its number."""
    generator = np.random.default_rng(0)
    clusters = np.arange(n_images) % K
    is_wrong = generator.random(n_images) < clusters / 20
    labels = np.where(is_wrong, (K - clusters) % K, K - 1 - clusters)
    predictions = pd.DataFrame(
        {
            "image_id": [f"{row}.png" for row in range(n_images)],
            "cluster": clusters,
            "confidence": generator.random(n_images).round(2),
        }
    )
    return Shown(predictions, labels if labeled else None, CLASSES if labeled else None, 0, "test")


def choose(shown: Shown, part: str = "some", n_old: int = 0) -> pd.DataFrame:
    return choose_examples(
        shown,
        n_clusters=K,
        part=part,  # type: ignore[arg-type]
        n_old=n_old,
        generator=np.random.default_rng(1),
    )


def purities(shown: Shown) -> dict[int, float]:
    assert shown.labels is not None
    clusters = shown.predictions["cluster"].to_numpy()
    return {c: float((shown.labels[clusters == c] == K - 1 - c).mean()) for c in range(K)}


def sort_rows(rows: NDArray[np.int64], shown: Shown) -> list[int]:
    confidence = shown.predictions["confidence"].to_numpy()
    return sorted(rows.tolist(), key=lambda row: (-confidence[row], row))


def test_examples_are_those_of_a_sort_cluster_by_cluster() -> None:
    shown = make_shown()
    assert shown.labels is not None
    for cluster, rows in choose(shown).groupby("cluster"):
        number = int(str(cluster))
        members = np.flatnonzero(shown.predictions["cluster"] == number)
        is_right = shown.labels[members] == K - 1 - number
        right = sort_rows(members[is_right], shown)
        by_kind = {kind: found["row"].tolist() for kind, found in rows.groupby("kind")}
        assert by_kind["most"] == right[:N_OF_KIND]
        assert by_kind["least"] == right[: N_OF_KIND - 1 : -1][:N_OF_KIND]
        wrong = members[~is_right].tolist()
        assert len(by_kind.get("false", [])) == min(N_OF_KIND, len(wrong))
        assert set(by_kind.get("false", [])) <= set(wrong)
        assert set(rows["class_name"]) == {CLASSES[K - 1 - number]}
        assert rows["purity"].iloc[0] == pytest.approx(is_right.mean())
        assert rows["label"].tolist() == [CLASSES[shown.labels[row]] for row in rows["row"]]
        assert rows["image_id"].tolist() == [f"{row}.png" for row in rows["row"]]


def test_clusters_are_spread_from_the_best_to_the_worst() -> None:
    shown = make_shown()
    known = purities(shown)
    order = sorted(known, key=lambda cluster: -known[cluster])
    chosen = choose(shown)["cluster"].drop_duplicates().tolist()
    assert len(chosen) == N_CLUSTERS
    assert (chosen[0], chosen[-1]) == (order[0], order[-1])
    assert [order.index(cluster) for cluster in chosen] == [0, 2, 4, 7, 9, 11]


def test_parts_of_the_clusters() -> None:
    shown = make_shown()
    old = set(choose(shown, "old", n_old=4)["cluster"])
    assert old == {8, 9, 10, 11}  # of the classes 3, 2, 1, 0
    new = set(choose(shown, "new", n_old=4)["cluster"])
    assert len(new) == N_CLUSTERS
    assert new <= set(range(8))
    others = set(choose(shown, "others")["cluster"])
    assert not others & set(choose(shown)["cluster"])
    assert [part_of_figure(number) for number in ("12", "14", "15", "16")] == [
        *("some", "old", "new", "others")
    ]


def test_without_labels_there_are_no_false_positives() -> None:
    shown = make_shown(labeled=False)
    examples = choose(shown)
    assert set(examples["kind"]) == {"most", "least"}
    assert examples["class_name"].isna().all()
    assert examples["purity"].isna().all()
    first = examples[examples["cluster"] == examples["cluster"].iloc[0]]
    members = np.flatnonzero(shown.predictions["cluster"] == first["cluster"].iloc[0])
    assert first["row"].tolist()[: N_IMAGES // 2] == sort_rows(members, shown)[: N_IMAGES // 2]
    means = examples.groupby("cluster", sort=False).size()
    confidence = shown.predictions.groupby("cluster")["confidence"].mean()[means.index]
    assert confidence.is_monotonic_decreasing


def test_clusters_may_be_small_empty_or_without_a_class() -> None:
    predictions = pd.DataFrame(
        {"image_id": list("abcd"), "cluster": [0, 2, 2, 5], "confidence": [0.5, 0.5, 0.9, 0.1]}
    )
    shown = Shown(predictions, np.array([1, 0, 0, 0]), ["cat", "dog"], 0, "train")
    examples = choose(shown)  # 5 is of no class, 1, 3 and 4 are empty
    assert examples["cluster"].tolist() == [0, 2, 2]
    assert examples["class_name"].tolist() == ["dog", "cat", "cat"]
    assert examples["image_id"].tolist() == ["a", "c", "b"]
    assert set(examples["kind"]) == {"most"}


@pytest.mark.parametrize(
    ("part", "labeled", "n_old", "message"),
    [
        ("old", True, 0, r"matched to a class that is old \(GCD\), none is"),
        ("new", True, K, r"matched to a class that is new \(GCD\), none is"),
        ("old", False, 3, "old .*true labels are not known"),
    ],
)
def test_a_part_without_clusters_is_refused(
    part: str, labeled: bool, n_old: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        choose(make_shown(labeled=labeled), part, n_old)


def test_further_clusters_must_be_there() -> None:
    predictions = make_shown().predictions.query(f"cluster < {N_CLUSTERS}").reset_index(drop=True)
    shown = Shown(predictions, None, None, 0, "train")
    with pytest.raises(ValueError, match="more than the 6 of figure 12, got 6"):
        choose(shown, "others")


def test_old_classes_are_counted() -> None:
    labels = {"train": np.array([2, 0, 1, 0])}
    is_old = {"train": labels["train"] < 2}
    truth = Truth({"train": list("abcd")}, labels, is_old, np.zeros(4, dtype=bool), CLASSES[:3])
    assert count_old(truth) == 2
    assert count_old(truth._replace(labels=None)) == 0
    assert count_old(truth._replace(is_old={"train": np.zeros(4, dtype=bool)})) == 0
