import re

import numpy as np
import pytest
import torch

from unic.models.heads import LinearHead
from unic.training.starting import learn_clusters

CPU = torch.device("cpu")


def blobs() -> tuple[np.ndarray, np.ndarray]:
    clusters = np.arange(90) % 3
    noise = np.random.default_rng(0).normal(size=(90, 6))
    return (4 * np.eye(3, 6)[clusters] + 0.3 * noise).astype(np.float32), clusters


def make_head() -> LinearHead:
    return LinearHead(6, 3, generator=torch.Generator().manual_seed(0))


def test_heads_tell_the_clusters_they_were_given() -> None:
    features, clusters = blobs()
    heads = [make_head(), make_head()]
    learn_clusters(heads, features, clusters, seed=0, device=CPU)
    for head in heads:
        found = head(torch.from_numpy(features)).argmax(1).numpy()
        assert found.tolist() == clusters.tolist()


def test_the_same_seed_gives_the_same_head() -> None:
    features, clusters = blobs()
    first, second = make_head(), make_head()
    for head in (first, second):
        learn_clusters([head], features, clusters, seed=3, device=CPU)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (np.zeros(89, dtype=np.int64), "clusters must be 90 in 0 to 2, got 89 in 0 to 0"),
        (np.full(90, 3), "clusters must be 90 in 0 to 2, got 90 in 3 to 3"),
    ],
)
def test_refuses_clusters_that_do_not_fit(clusters: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        learn_clusters([make_head()], blobs()[0], clusters, seed=0, device=CPU)
