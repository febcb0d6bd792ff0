import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.heads import ClusterHead
from unic.models.trained import ModelDescription, make_model
from unic.training.prediction import predict_clusters, predict_images

CPU = torch.device("cpu")
VIEW = View(32, 1.0, (0.5,) * 3, (0.2,) * 3)


def head(n_clusters: int = 7) -> ClusterHead:
    return ClusterHead(5, n_clusters, width=16, generator=torch.Generator().manual_seed(0))


def noise_images() -> ArrayImages:
    pixels = np.random.default_rng(0).integers(256, size=(10, 36, 32, 3), dtype=np.uint8)
    return ArrayImages([str(row) for row in range(10)], pixels)


def loader_of(images: ArrayImages) -> ViewLoader:
    return ViewLoader(images, VIEW)


def random_features(n_images: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(n_images, 5)).astype(np.float32) * 30


def test_predicts_the_largest_softmax() -> None:
    features, model = random_features(200), head()
    clusters, confidence = predict_clusters(model, features, device=CPU)
    with torch.no_grad():
        logits = model(torch.from_numpy(features)).double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_array_equal(clusters, shares.argmax(1))
    np.testing.assert_allclose(confidence, shares.max(1), rtol=1e-5)
    assert (clusters.dtype, confidence.dtype) == (np.int64, np.float32)
    assert len(np.unique(clusters)) > 1


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mlp", "linear", "self_attention"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_images_are_predicted_by_every_head(name: str, kind: str) -> None:
    description = ModelDescription(
        name=name,
        options={"img_size": 32} if name == "test_vit" else {},
        image_size=32,
        n_clusters=4,
        head=kind,
        head_norm=None,
        head_width=16,
    )
    model = make_model(description, weights="random", seed=0)
    for parameter in model.head.parameters():
        parameter.mul_(20)
    images, pixels = noise_images(), []
    for row in range(len(images)):
        pixels.append(next(loader_of(images).batches([np.array([row])], np.random.default_rng(0))))
    found = predict_images(model, images, VIEW, batch_size=4, device=CPU)
    output = model.backbone.prepare(torch.cat(pixels))
    if kind == "self_attention":
        features, read = model.backbone.features_and_tokens(output)
    else:
        features = read = model.backbone.features_of(output)
    shares = torch.softmax(model.head(read), dim=1)
    np.testing.assert_allclose(found.features, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.choose()[0], shares.argmax(1))
    np.testing.assert_allclose(found.choose()[1], shares.amax(1), rtol=1e-3)
    assert found.features.flags.c_contiguous


def test_confidence_lies_between_chance_and_one() -> None:
    _, confidence = predict_clusters(head(4), random_features(100) * 1000, device=CPU)
    assert confidence.min() >= 1 / 4
    assert confidence.max() == 1
    _, confidence = predict_clusters(head(4), np.zeros((3, 5), dtype=np.float32), device=CPU)
    np.testing.assert_array_equal(confidence, np.float32([1 / 4] * 3))


def test_one_cluster_takes_all() -> None:
    clusters, confidence = predict_clusters(head(1), random_features(5), device=CPU)
    np.testing.assert_array_equal(clusters, np.zeros(5))
    np.testing.assert_array_equal(confidence, np.ones(5))


def test_each_image_is_predicted_by_itself() -> None:
    features = random_features(50)
    clusters, _ = predict_clusters(head(), features, device=CPU)
    reversed_clusters, _ = predict_clusters(head(), features[::-1].copy(), device=CPU)
    np.testing.assert_array_equal(reversed_clusters[::-1], clusters)


def test_the_head_can_be_trained_after_prediction() -> None:
    model = head()
    predict_clusters(model, random_features(5), device=CPU)
    model(torch.rand(2, 5)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
