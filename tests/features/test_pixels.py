import numpy as np

from unic.features.pixels import extract_pixels
from unic.images.images import ArrayImages
from unic.images.views import View, prepare_image

VIEW = View(32, 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_pixels_are_those_of_the_evaluation_view() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(5, 40, 36, 3), dtype=np.uint8)
    images = ArrayImages([str(row) for row in range(5)], pixels)
    found = extract_pixels(images, VIEW)
    assert (found.shape, found.dtype) == ((5, 3 * 32 * 32), np.float32)
    for row in range(5):
        expected = VIEW.normalize(prepare_image(images[row], VIEW)[None])
        np.testing.assert_array_equal(found[row], expected.flatten())
