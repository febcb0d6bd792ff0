"""The handwritten digits, against scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits

from unic.images.datasets import list_images, open_images, read_labels


def test_digits_hold_out_every_fifth_image() -> None:
    ids = list_images("digits", root=None)
    assert list(ids) == ["train", "test"]
    assert ids["test"][:3] == ["4", "9", "14"]
    assert ids["train"][:6] == ["0", "1", "2", "3", "5", "6"]
    assert sorted(map(int, ids["train"] + ids["test"])) == list(range(1797))


def test_digits_have_the_pixels_and_labels_of_scikit_learn() -> None:
    digits = load_digits()
    images = open_images("digits", ["7", "0", "1796"], root=None)
    for row, index in enumerate((7, 0, 1796)):
        expected = np.rint(digits.images[index] / 16 * 255)
        for channel in range(3):
            np.testing.assert_array_equal(images[row][..., channel], expected)
    assert (len(images), images[0].dtype, list(images.ids)) == (3, np.uint8, ["7", "0", "1796"])
    annotations = read_labels("digits", {"train": ["7", "0"], "test": ["1796"]}, label_file=None)
    assert annotations is not None
    assert annotations.labels["train"].tolist() == digits.target[[7, 0]].tolist()
    assert annotations.labels["test"].tolist() == [digits.target[1796]]
    assert annotations.class_names == [str(digit) for digit in range(10)]
