"""Views of handwriting."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from unic.images.writing import writing_views


def strokes(n_images: int = 12, side: int = 32) -> Tensor:
    """Digits as pixels in [0, 1], shape ``(n, 3, s, s)``."""
    images = torch.tensor(load_digits().images[:n_images] / 16, dtype=torch.float32)
    large = torch.nn.functional.interpolate(images[:, None], (side, side), mode="bilinear")
    return large.expand(-1, 3, -1, -1).contiguous()


def views_of(seed: int, pixels: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return writing_views(strokes() if pixels is None else pixels, generator)


def test_views_keep_shape_dtype_and_about_the_range() -> None:
    views = views_of(0)
    assert views.shape == (12, 3, 32, 32)
    assert views.dtype == torch.float32
    assert torch.isfinite(views).all()
    assert float(views.min()) > -0.5
    assert float(views.max()) < 1.5
    assert torch.equal(views[:, 0], views[:, 1])  # gray stays gray


def test_views_are_those_of_their_generator() -> None:
    assert torch.equal(views_of(3), views_of(3))
    assert not torch.equal(views_of(3), views_of(4))


def test_views_leave_their_pixels_alone() -> None:
    pixels = strokes()
    views_of(0, pixels)
    assert torch.equal(pixels, strokes())


def test_views_of_one_image_differ_but_resemble_it() -> None:
    pixels = strokes(1).expand(200, -1, -1, -1)
    views = views_of(0, pixels)
    assert float((views[0] - views[1]).abs().mean()) > 0.01
    mean = views.mean(0).flatten()
    assert float(torch.corrcoef(torch.stack([mean, pixels[0].flatten()]))[0, 1]) > 0.8


def test_what_comes_in_from_outside_is_black() -> None:
    views = views_of(0, torch.ones(300, 3, 16, 16))
    corners = views[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.min(dim=1).values.median()) < 0.3
    assert float(views[:, 0, 8, 8].median()) > 0.9
