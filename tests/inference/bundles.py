"""Small bundles, of the handwritten digits, without the search of the recipe or a training."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unic.features.extraction import extract_features
from unic.images.datasets import list_images, open_images, read_labels
from unic.images.images import ArrayImages
from unic.images.views import View
from unic.inference.bundle import Bundle, Description, digest_parts
from unic.inference.consensus import Consensus
from unic.inference.finetuned import Finetuned
from unic.models.backbones import load_backbone
from unic.models.heads import fit_norms
from unic.models.trained import ModelDescription, make_model
from unic.neighbors.metric import to_euclidean
from unic.quality.outliers import measure_reference
from unic.recipe.consensus import average, match_clusters
from unic.recipe.heads import start_heads
from unic.recipe.model import Model
from unic.recipe.spaces import find_class_whitening, find_directions, whiten

N_TRAINING, N_NEW = 300, 40
VIEW = View(32, 0.9, (0.5, 0.45, 0.4), (0.5, 0.4, 0.3))
CPU = torch.device("cpu")
_SAID: dict[str, Any] = {
    **{"experiment": "small", "version": "0.1.0", "license": None},
    **{"view": VIEW, "n_clusters": 10, "seed": 3},
}


def read_pixels(split: str, n_images: int) -> NDArray[np.uint8]:
    """Digits, shape ``(n, 8, 8, 3)``."""
    images = open_images("digits", list_images("digits", root=None)[split][:n_images], root=None)
    return np.stack([images[row] for row in range(n_images)])


def make_bundle(
    backbone: str = "test_resnet",
    weights: str = "bundled:digits_test_resnet",
    *,
    names: tuple[str, ...] = (),
    decoded: int | None = None,
) -> Bundle:
    """A bundle of two heads by the true classes; of labeled images where classes have names."""
    network = load_backbone(backbone, weights=weights, options={}, image_size=VIEW.image_size)
    ids = [f"digit {row}.png" for row in range(N_TRAINING)]
    images = ArrayImages(ids, read_pixels("train", N_TRAINING))
    features = extract_features(images, network, VIEW, batch_size=64, device=CPU)
    annotations = read_labels("digits", list_images("digits", root=None))
    assert annotations is not None
    model = _make_model(features, annotations.labels["train"][:N_TRAINING], bool(names))
    description = Description(
        **_SAID,
        backbone=backbone,
        options={},
        weights=weights,
        decoded=decoded,
        head=None,
        trained=None,
        names=names,
        quality={"silhouette": 0.5, "disagreement": 0.25, "is_balanced": False},
        outliers=measure_reference(mine_distances(model.points)),
        digests=digest_parts(network, ids),
    )
    return Bundle(description, network, Consensus(model), ids)


def make_trained_bundle(
    backbone: str = "test_resnet", *, head: str = "linear", head_norm: str | None = "standardize"
) -> Bundle:
    """A bundle with a head that was drawn, and an own last block."""
    options = {"img_size": VIEW.image_size} if backbone == "test_vit" else {}
    kind: dict[str, Any] = {"head": head, "head_norm": head_norm, "head_width": 16}
    about = ModelDescription(backbone, options, VIEW.image_size, 10, **kind)
    network, drawn = make_model(about, weights="random", seed=1)
    ids = [f"digit {row}.png" for row in range(N_TRAINING)]
    images = ArrayImages(ids, read_pixels("train", N_TRAINING))
    features = extract_features(images, network, VIEW, batch_size=64, device=CPU)
    fit_norms([drawn], features)
    with torch.no_grad():
        for weights in drawn.parameters():
            weights.mul_(20)  # so that clusters differ
    points = to_euclidean(features, "cosine")
    learned = Finetuned(drawn, points, np.arange(N_TRAINING) % 10, np.full(N_TRAINING, -1))
    description = Description(
        **_SAID,
        backbone=backbone,
        options=options,
        weights="random",
        decoded=None,
        head=kind,
        trained="last_block",
        names=(),
        quality={"silhouette": 0.25, "neighbor_agreement": 0.75},
        outliers=measure_reference(mine_distances(points)),
        digests=digest_parts(network, ids),
    )
    return Bundle(description, network, learned, ids)


def mine_distances(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """One less the cosine to the 10 nearest, after that to the point itself: ``(n, 11)``."""
    between = 1.0 - points @ points.T
    np.fill_diagonal(between, -3.0)
    return np.sort(between, axis=1)[:, :11].clip(min=0.0)


def _make_model(features: NDArray[np.float32], labels: NDArray[np.int64], labeled: bool) -> Model:
    known = np.where(np.arange(len(labels)) % 3 == 0, labels, -1) if labeled else 0 * labels - 1
    directions = find_directions(features)
    coordinates = directions.project(features)
    whitening = find_class_whitening(coordinates, known) if labeled else directions.scales(0.25)
    points = whiten(coordinates, whitening)
    cosines = points @ points.T - 4 * np.eye(len(points), dtype=np.float32)
    partitions = np.stack([labels, (labels + 3) % 10])
    partitions[1, ::7] = 0
    read = coordinates if labeled else points
    heads = start_heads(read, partitions, 10)
    probs = heads.predict(read)
    orders = match_clusters(probs)
    neighbors = np.argsort(-cosines, axis=1)[:, :10]
    mean = average(probs, orders)
    return Model(
        directions,
        whitening,
        heads,
        orders,
        points,
        mean,
        neighbors,
        known,
        reads_coordinates=labeled,
    )
