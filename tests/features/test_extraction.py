import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unic.features.extraction import check_finite, extract_features
from unic.images.images import ArrayImages, FileImages
from unic.images.views import View, prepare_image
from unic.models.backbones import Backbone, load_backbone

VIEW = View(32, 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("test_resnet", weights="random", options={}, image_size=32)


def noise(n_images: int) -> ArrayImages:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(n_images, 40, 36, 3), dtype=np.uint8)
    return ArrayImages([f"image {row}" for row in range(n_images)], pixels)


def evaluation_view(images: ArrayImages, row: int) -> torch.Tensor:
    return VIEW.normalize(prepare_image(images[row], VIEW)[None])


# Against one image after the other


def test_features_are_those_of_single_images(backbone: Backbone) -> None:
    images = noise(11)
    features = extract_features(images, backbone, VIEW, batch_size=4, device=CPU)
    assert (features.shape, features.dtype) == ((11, backbone.n_dims), np.float32)
    with torch.no_grad():
        for row in range(11):
            expected = backbone(evaluation_view(images, row))[0]
            np.testing.assert_allclose(features[row], expected, rtol=1e-5, atol=1e-6)


# Laws


@pytest.mark.parametrize("batch_size", [1, 7, 10, 100])
def test_the_batch_size_changes_nothing(batch_size: int, backbone: Backbone) -> None:
    images = noise(20)
    expected = extract_features(images, backbone, VIEW, batch_size=20, device=CPU)
    found = extract_features(images, backbone, VIEW, batch_size=batch_size, device=CPU)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_the_number_of_workers_changes_nothing(backbone: Backbone) -> None:
    images = noise(9)
    first, second = (
        extract_features(images, backbone, VIEW, batch_size=4, device=CPU, n_workers=n)
        for n in (1, 3)
    )
    np.testing.assert_array_equal(first, second)


def test_permuting_the_images_permutes_the_features(backbone: Backbone) -> None:
    images, order = noise(12), np.random.default_rng(1).permutation(12)
    permuted = ArrayImages([images.ids[row] for row in order], images.pixels[order])
    features = extract_features(images, backbone, VIEW, batch_size=5, device=CPU)
    found = extract_features(permuted, backbone, VIEW, batch_size=5, device=CPU)
    np.testing.assert_allclose(found, features[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ],
)
def test_a_backbone_can_be_trained_after_extraction(device: str) -> None:
    backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    extract_features(noise(3), backbone, VIEW, batch_size=2, device=torch.device(device))
    backbone.set_trainable("all")
    backbone(torch.rand(2, 3, 32, 32, device=device)).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


# Refusals


def test_names_the_image_whose_features_are_not_finite() -> None:
    features = np.ones((6, 3), dtype=np.float32)
    features[2, 1], features[5, 0] = np.nan, np.inf
    message = "those of 2 of 6 images are not, first image image 2"
    with pytest.raises(ValueError, match=message):
        check_finite(features, noise(6).ids)


def test_refuses_a_backbone_whose_features_are_not_finite() -> None:
    broken = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    with torch.no_grad():
        next(broken.block.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="those of 2 of 2 images are not, first image image 0"):
        extract_features(noise(3), broken, VIEW, batch_size=2, device=CPU)


def test_names_an_image_that_cannot_be_decoded(backbone: Backbone, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    images = FileImages(["0.png", "1.png"], str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(f"cannot decode {tmp_path}/1.png")):
        extract_features(images, backbone, VIEW, batch_size=2, device=CPU)
