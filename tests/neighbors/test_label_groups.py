import numpy as np
import pytest
from numpy.typing import NDArray

from unic.neighbors.label_groups import LabelGroups

LABELS = np.array([2, -1, 0, 2, 0, 0, -1, 5, 2], dtype=np.int64)
UNIFORM = np.linspace(0, 1, 1000, endpoint=False)


@pytest.mark.parametrize("anchor", np.flatnonzero(LABELS >= 0).tolist())
def test_draws_are_uniform_over_a_plain_list(anchor: int) -> None:
    groups = LabelGroups(LABELS)
    anchors = np.full(len(UNIFORM), anchor)
    same = [image for image in range(9) if LABELS[image] == LABELS[anchor]]
    other = [image for image in range(9) if LABELS[image] not in (-1, LABELS[anchor])]
    for drawn, expected in (
        (groups.draw_same(anchors, UNIFORM), same),
        (groups.draw_other(anchors, UNIFORM), other),
    ):
        counts = np.bincount(drawn, minlength=9)
        assert np.flatnonzero(counts).tolist() == expected
        assert np.ptp(counts[expected]) <= 1
    assert groups.n_others[anchor] == len(other)


@pytest.mark.parametrize("labels", [LABELS, np.full(4, -1), np.zeros(3, dtype=np.int64)])
def test_labeled_images_are_those_with_a_label(labels: NDArray[np.int64]) -> None:
    groups = LabelGroups(labels)
    assert len(groups) == len(labels)
    np.testing.assert_array_equal(groups.is_labeled, labels >= 0)
