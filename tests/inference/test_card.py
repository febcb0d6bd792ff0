from typing import Any

import pytest

from unic.inference import card
from unic.inference.bundle import Bundle
from unic.inference.card import describe

METRICS: dict[str, Any] = {
    "n_images": {"train": 300, "test": 40},
    "n_skipped": 0,
    "seeds": [3, 4],
    "shown": {"why": "the lower of the two middle ones of 2 seeds by loss"},
    "methods": {"unic": {"test": {"used_clusters": {"mean": 10.0}}}},
}


def test_says_what_is_known_without_labels(bundle: Bundle) -> None:
    text = describe(bundle, METRICS, data="digits")
    assert text.startswith("# small: 10 clusters of images\n\n")
    assert "Clusters were found without labels." in text
    assert "- images: 300 train, 40 test; train alone" in text
    assert "Seeds 3, 4; this is seed 3, the lower of the two" in text
    assert "silhouette by centroids: 0.500" in text
    assert "disagreement of neighbors: 0.250" in text
    assert "license of the weights: not known here" in text
    assert "true labels, " not in text
    sizes = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| ")]
    assert sum(map(int, sizes[1:])) == 300
    assert 'unic.load("results/small")' in text


def test_says_which_head_was_trained(trained_bundle: Bundle) -> None:
    text = describe(trained_bundle, METRICS, data="digits")
    how = "A backbone whose last block was trained embeds the image, and a trained head (linear)"
    assert how in text
    assert "- weights: random, with a last block trained here, " in text
    assert "neighbors in the same cluster: 0.750" in text
    assert "disagreement" not in text
    assert "sizes of clusters" not in text
    sizes = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| ")]
    assert sizes[1:] == ["30"] * 10


def test_says_scores_and_labels_where_there_are_some(labeled_bundle: Bundle) -> None:
    scores = {"acc": {"mean": 0.91234}, "used_clusters": {"mean": 10.0}}
    metrics = METRICS | {"methods": {"unic": {"test": scores}}, "n_skipped": 2}
    text = describe(labeled_bundle, metrics, data="digits")
    assert "Clusters were found with labels of 100 images, of 10 classes." in text
    assert "By true labels, of which it has seen 100 (mean over seeds):" in text
    assert "| test | acc | 91.2 |" in text
    assert "used_clusters" not in text
    assert "could not be read: 2" in text
    assert "| zero |" in text


def test_many_clusters_are_cut_short(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "MAX_LISTED", 3)
    text = describe(bundle, METRICS, data="digits")
    assert "7 more have " in text


def test_equal_runs_have_equal_cards(bundle: Bundle) -> None:
    assert describe(bundle, METRICS, data="digits") == describe(bundle, METRICS, data="digits")
