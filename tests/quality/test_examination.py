import numpy as np
import pandas as pd
import pytest

from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.quality.examination import Examination, examine


def examined(labels: np.ndarray | None = None, *, nothing_of: int | None = None) -> Examination:
    """Three blobs of 40 images, of which image 7 is a copy of image 1; one may have no features."""
    generator = np.random.default_rng(0)
    truth = np.arange(120) % 3
    points = (6 * np.eye(3, 16)[truth] + generator.normal(size=(120, 16))).astype(np.float32)
    points[7] = points[1]
    points = to_euclidean(points, "cosine")
    if nothing_of is not None:
        points[nothing_of] = 0.0
    mined = mine_neighbors(points, n_neighbors=11, far_rank=None)
    table = pd.DataFrame(
        {
            "image_id": [f"{row}.png" for row in range(120)],
            "cluster": truth,
            "confidence": np.linspace(0.5, 1.0, 120, dtype=np.float32),
        }
    )
    other = table.assign(cluster=np.roll(truth, 1))  # the same clusters, numbered anew
    return examine(
        points,
        mined.indices,
        mined.distances,
        {4: table, 5: other},
        shown=4,
        n_clusters=4,
        labels=np.full(120, -1) if labels is None else labels,
        class_names=["ant", "bee", "cat"],
    )


def test_scores_are_json_with_null_for_what_is_empty() -> None:
    quality = examined().quality
    assert quality["seed"] == 4
    assert quality["sizes"] == [40, 40, 40, 0]
    assert quality["overall"]["neighbor_agreement"] > 0.95
    assert quality["overall"]["run_ari"] == 1.0
    assert quality["by_cluster"]["silhouette"][3] is None
    assert "meaning" in quality["scores"]["conductance"]


def test_copies_are_a_group() -> None:
    table = examined().tables["duplicates"]
    assert table["path"].tolist() == ["1.png", "7.png"]
    assert table["is_exact"].tolist() == [True, True]
    assert table["group"].nunique() == 1


def test_every_image_has_an_outlier_score_farthest_first() -> None:
    table = examined().tables["outliers"]
    assert sorted(table["row"]) == list(range(120))
    assert table["score"].is_monotonic_decreasing


def test_wrong_labels_are_suspects_with_the_class_of_their_neighbors() -> None:
    labels = np.arange(120) % 3
    labels[[10, 20]] = 0
    table = examined(labels).tables["suspects"]
    assert sorted(table["path"]) == ["10.png", "20.png"]
    assert table.set_index("path")["suggested"].to_dict() == {"10.png": "bee", "20.png": "cat"}
    assert (table["label"] == "ant").all()


def test_images_without_features_are_named_and_all_else_is_said() -> None:
    found = examined(nothing_of=30)
    assert found.quality["featureless"] == ["30.png"]
    assert found.tables["featureless"]["row"].tolist() == [30]
    assert found.quality["overall"]["silhouette"] == pytest.approx(
        examined().quality["overall"]["silhouette"], abs=0.02
    )
    assert found.tables["outliers"]["path"][0] == "30.png"
    assert examined().quality["featureless"] == []


def test_no_label_is_no_suspect() -> None:
    assert examined().tables["suspects"].empty
