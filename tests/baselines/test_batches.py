import numpy as np
import pytest
import torch

from tests.baselines.blobs import three_blobs
from unic.baselines.batches import count_steps, draw_batches, draw_neighbors, standardize


def test_features_are_centered_and_of_variance_one_on_average() -> None:
    inputs, _ = three_blobs()
    scaled = standardize(inputs.features, device="cpu")
    train = scaled["train"].double()
    assert train.mean(dim=0).abs().max() < 1e-6
    assert float(train.var(dim=0, correction=0).mean()) == pytest.approx(1.0, rel=1e-6)
    exact = inputs.features["train"].astype(np.float64)
    expected = (inputs.features["test"] - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0).mean())
    np.testing.assert_allclose(scaled["test"], expected, atol=1e-5)


def test_a_pass_has_no_image_twice_and_passes_differ() -> None:
    batches = list(draw_batches(10, 4, 6, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [4] * 6
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert len(set(torch.cat([first, second]).tolist())) == 8
    assert len({tuple(batch.tolist()) for batch in batches}) == 6


def test_a_batch_holds_all_images_where_they_are_few() -> None:
    (batch,) = draw_batches(5, 100, 1, torch.Generator().manual_seed(0))
    assert sorted(batch.tolist()) == [0, 1, 2, 3, 4]


def test_every_neighbor_is_drawn_as_often() -> None:
    neighbors = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    anchors = torch.tensor([0, 1]).repeat(20_000)
    drawn = draw_neighbors(neighbors, anchors, torch.Generator().manual_seed(0))
    assert (drawn[anchors == 0] <= 4).all()
    assert (drawn[anchors == 1] > 4).all()
    counts = torch.bincount(drawn, minlength=9)[1:]
    assert counts.sum() == 40_000
    assert (counts / 5000 - 1).abs().max() < 0.06


@pytest.mark.parametrize(
    ("n_images", "expected"), [(10, 50), (1000, 100), (5000, 500), (20_000, 900)]
)
def test_steps_are_those_of_the_epochs_between_bounds(n_images: int, expected: int) -> None:
    found = count_steps(n_images, 100, n_epochs=10, min_steps=50, max_steps=900)
    assert found == expected
