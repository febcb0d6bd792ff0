import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.inference.bundles import CPU, N_TRAINING, VIEW, make_trained_bundle
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.inference.bundle import Bundle
from unic.inference.finetuned import Finetuned
from unic.recipe.model import Predictions


def look(bundle: Bundle, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Predictions]:
    images = ArrayImages([str(row) for row in range(len(pixels))], pixels)
    return bundle.learned.look(
        bundle.backbone, images, VIEW, batch_size=16, device=CPU, n_workers=1
    )


def learned_of(bundle: Bundle) -> Finetuned:
    assert isinstance(bundle.learned, Finetuned)
    return bundle.learned


def test_new_images_get_what_the_head_says(
    trained_bundle: Bundle, pixels: NDArray[np.uint8]
) -> None:
    features, found = look(trained_bundle, pixels)
    learned = learned_of(trained_bundle)
    with torch.no_grad():
        logits = learned.head(torch.from_numpy(features)).double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(found.probs, shares, atol=1e-5)
    assert len(set(shares.argmax(1).tolist())) > 2


def test_neighbors_are_the_nearest_by_angle(
    trained_bundle: Bundle, pixels: NDArray[np.uint8]
) -> None:
    features, found = look(trained_bundle, pixels)
    exact = features.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    between = 1 - exact @ learned_of(trained_bundle).points.T.astype(np.float64)  # (n, m)
    nearest = np.sort(between, axis=1)[:, :10]
    np.testing.assert_allclose(found.distances, nearest, atol=1e-5)
    rows = np.take_along_axis(between, found.neighbors, axis=1)
    np.testing.assert_allclose(rows, nearest, atol=1e-5)


def test_features_without_direction_are_at_a_right_angle_to_all(
    trained_bundle: Bundle, pixels: NDArray[np.uint8]
) -> None:
    learned = learned_of(trained_bundle)
    nothing = learned._replace(points=np.zeros_like(learned.points))
    _, found = look(trained_bundle._replace(learned=nothing), pixels)
    assert (found.distances == 1).all()


@pytest.mark.parametrize("head", ["linear", "self_attention"])
def test_the_graph_is_the_same_function(head: str, pixels: NDArray[np.uint8]) -> None:
    bundle = make_trained_bundle("test_vit", head=head, head_norm=None)
    _, found = look(bundle, pixels)
    images = ArrayImages([str(row) for row in range(len(pixels))], pixels)
    (views,) = ViewLoader(images, VIEW).batches([np.arange(len(pixels))], np.random.default_rng(0))
    network = bundle.backbone.model
    with torch.no_grad():
        tokens = network.forward_features(views)  # type: ignore[operator]
        features = network.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
        probs = bundle.learned.graph(bundle.backbone)(tokens, features)
    torch.testing.assert_close(probs, found.probs, rtol=0, atol=1e-4)


def test_is_put_together_again(trained_bundle: Bundle) -> None:
    learned = learned_of(trained_bundle)
    tensors = learned.take_apart()
    assert tensors["training_points"].shape[0] == N_TRAINING
    other = learned_of(make_trained_bundle(head_norm="standardize")).head
    with torch.no_grad():
        for weights in other.parameters():
            weights.zero_()
    again = Finetuned.put_together(tensors, other, origin="a file")
    for name, tensor in again.take_apart().items():
        assert torch.equal(tensor, tensors[name])
    del tensors["head.1.bias"]
    with pytest.raises(ValueError, match="the weights in a file must fit LinearHead"):
        Finetuned.put_together(tensors, other, origin="a file")
