import numpy as np
import torch
from numpy.typing import NDArray

from tests.inference.bundles import CPU, VIEW
from unic.features.extraction import extract_features
from unic.images.images import ArrayImages
from unic.inference.bundle import Bundle
from unic.inference.consensus import Consensus
from unic.recipe.model import Predictions


def look(bundle: Bundle, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Predictions]:
    images = ArrayImages([str(row) for row in range(len(pixels))], pixels)
    return bundle.learned.look(
        bundle.backbone, images, VIEW, batch_size=16, device=CPU, n_workers=1
    )


def test_new_images_are_predicted_by_the_recipe(bundle: Bundle, pixels: NDArray[np.uint8]) -> None:
    features, found = look(bundle, pixels)
    images = ArrayImages([str(row) for row in range(len(pixels))], pixels)
    plain = extract_features(images, bundle.backbone, VIEW, batch_size=16, device=CPU)
    assert (features == plain).all()
    assert isinstance(bundle.learned, Consensus)
    wanted = bundle.learned.model.predict(plain)
    assert torch.equal(found.probs, wanted.probs)
    assert (found.neighbors == wanted.neighbors).all()


def test_says_what_its_model_says(labeled_bundle: Bundle) -> None:
    learned = labeled_bundle.learned
    assert learned.n_clusters == 10
    known = learned.known_labels
    assert (learned.clusters[known >= 0] == known[known >= 0]).all()


def test_the_graph_is_the_same_function(
    bundle: Bundle, labeled_bundle: Bundle, pixels: NDArray[np.uint8]
) -> None:
    for each in (bundle, labeled_bundle):
        features, found = look(each, pixels)
        rows = torch.from_numpy(features)
        probs = each.learned.graph(each.backbone)(torch.empty(0), rows)
        torch.testing.assert_close(probs, found.probs, rtol=0, atol=1e-5)


def test_features_of_any_length_are_one_point(bundle: Bundle, pixels: NDArray[np.uint8]) -> None:
    graph = bundle.learned.graph(bundle.backbone)
    rows = torch.from_numpy(look(bundle, pixels)[0])
    wanted = graph(torch.empty(0), rows)
    for factor in (1e-30, 1e30):
        found = graph(torch.empty(0), rows * factor)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert graph(torch.empty(0), torch.zeros(2, rows.shape[1])).isfinite().all()
