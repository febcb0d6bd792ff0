import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unic.recipe.clustering import fit
from unic.recipe.model import Model, find_neighbors, measure_distances, read_model, save_model
from unic.recipe.spaces import whiten
from unic.storage.tensor_files import save_tensors


def make_model(known: bool = False) -> tuple[Model, NDArray[np.float32]]:
    """A model of three blobs, and new points near these."""
    generator = np.random.default_rng(0)
    truth = np.arange(60) % 3
    points = (10 * np.eye(3, 12)[truth] + 0.5 * generator.normal(size=(60, 12))).astype("f4")
    labels = np.where(known & (np.arange(60) < 15) & (truth < 2), truth, -1)  # the third is new
    fitted = fit(
        points[:45],
        known_labels=labels[:45],
        n_clusters=3,
        generator=torch.Generator().manual_seed(0),
    )
    return fitted.model, points[45:]


@pytest.mark.parametrize("known", [False, True])
def test_new_images_are_half_of_their_own_and_half_of_their_neighbors(known: bool) -> None:
    model, new = make_model(known)
    found = model.predict(new)
    assert model.reads_coordinates == known
    coordinates = model.directions.project(new)
    points = whiten(coordinates, model.whitening).astype(np.float64)
    weights, biases = model.heads.weights.double().numpy(), model.heads.biases.double().numpy()
    for row, point in enumerate(points):
        own = np.zeros(3)
        for head, order in enumerate(model.orders):
            read = coordinates[row].astype(np.float64) if known else point
            logits = weights[head] @ read + biases[head]
            probs = np.exp(logits - logits.max())
            own += (probs / probs.sum())[order] / len(model.orders)
        cosines = model.points.astype(np.float64) @ point
        near = np.argsort(-cosines)[:10]
        expected = 0.5 * own + 0.5 * model.probs.numpy()[near].mean(axis=0)
        np.testing.assert_allclose(found.probs[row].numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(found.distances[row], 1 - cosines[near], atol=1e-6)
        assert found.neighbors[row].tolist() == near.tolist()


def test_labeled_images_are_sure_of_their_label() -> None:
    model, _ = make_model(known=True)
    probs = model.predict_training().probs.numpy()
    labeled = np.flatnonzero(model.known_labels >= 0)
    assert probs[labeled].argmax(axis=1).tolist() == model.known_labels[labeled].tolist()
    assert (probs[labeled].max(axis=1) == 1.0).all()


def test_distances_equal_a_plain_loop() -> None:
    points = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    near = np.random.default_rng(1).integers(20, size=(20, 3))
    found = measure_distances(points, points, near)
    for row in range(20):
        for rank, other in enumerate(near[row]):
            assert found[row, rank] == pytest.approx(1 - points[row] @ points[other], abs=1e-6)


@pytest.mark.parametrize("n_others", [4, 30])
def test_neighbors_are_found_as_by_a_full_sort(n_others: int) -> None:
    points = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    others = np.random.default_rng(1).normal(size=(n_others, 5)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    near, distances = find_neighbors(points, others)
    between = 1 - points @ others.T
    assert (near == np.argsort(between, axis=1)[:, : min(10, n_others)]).all()
    np.testing.assert_allclose(
        distances, np.take_along_axis(between, near, axis=1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("known", [False, True])
def test_a_model_comes_back_as_it_was(tmp_path: Path, known: bool) -> None:
    model, new = make_model(known)
    save_model(tmp_path / "model.safetensors", model, {"n_clusters": 3})
    again, about = read_model(tmp_path / "model.safetensors")
    assert about["n_clusters"] == 3
    assert again.n_clusters == 3
    assert again.reads_coordinates == model.reads_coordinates == known
    torch.testing.assert_close(again.predict(new).probs, model.predict(new).probs, rtol=0, atol=0)


def test_no_new_image_is_no_prediction() -> None:
    model, new = make_model()
    assert model.predict(new[:0]).probs.shape == (0, 3)


def test_refuses_features_of_another_backbone() -> None:
    model, new = make_model()
    with pytest.raises(ValueError, match=r"features must have 12 dims, got 11"):
        model.predict(new[:, :11].copy())


def test_refuses_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"a": torch.zeros(1)}, about={"format": 0})
    with pytest.raises(ValueError, match=re.escape("recipe of format 2, got format 0")):
        read_model(path)
