"""The recipe: many partitions, heads from the best by label-free criteria, their consensus."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs
from unic.baselines.spectral import join_neighbors
from unic.neighbors.mining import mine_neighbors
from unic.recipe.consensus import average, match_clusters, measure_agreement, smooth
from unic.recipe.heads import Heads, Training, measure_fit, start_heads, train_heads
from unic.recipe.partitions import choose_counts, find_partitions
from unic.recipe.silhouettes import centroid_silhouette
from unic.recipe.spaces import find_directions
from unic.storage.known_labels import check_known_labels

logger = logging.getLogger(__name__)

WHITENING = {"white": 0.25, "half": 0.125, "plain": 0.0}  # space to exponent
N_NEIGHBORS = 10
MAX_SAMPLE = 10_000  # images that partitions are sought on
N_HEADS = 10  # trained by each of the two criteria
N_KEPT = 6  # whose consensus is taken
BALANCED_SHARE = 0.95  # of the silhouette, see `prefers_balance`
MAX_IMBALANCE = 0.1  # in nats, see `prefers_balance`
UNANIMITY = 0.95  # of the heads, see `prefers_balance`
_BLOCK_ROWS = 2048  # of new images that are compared with all training images at a time


class Space(NamedTuple):
    """The images that partitions are sought on."""

    points: Mapping[str, NDArray[np.float32]]  # space to (n, r)
    graphs: Mapping[str, sp.csr_array]  # space to (n, n)
    neighbors: NDArray[np.int64]  # (n, k) in the whitened space, without the images themselves


class Quality(NamedTuple):
    """What partitions, or heads, are judged by without labels, each of shape ``(s,)``."""

    silhouette: NDArray[np.float64]  # higher is better
    disagreement: NDArray[np.float64]  # of neighbors; lower is better
    imbalance: NDArray[np.float64]  # 0: of equal sizes

    def cost(self) -> NDArray[np.float64]:
        """Compactness and agreement, whatever the sizes: ``-log silhouette + 2 disagreement``."""
        return 2.0 * self.disagreement - np.log(np.maximum(self.silhouette, 1e-6))

    def balanced_cost(self) -> NDArray[np.float64]:
        """Agreement, and sizes that are equal: ``disagreement + imbalance``."""
        return self.disagreement + self.imbalance


class Consensus(NamedTuple):
    """Heads whose clusters are matched, and what they say of the training images together."""

    heads: Heads
    orders: NDArray[np.int64]  # (h, c)
    probs: Tensor  # (n, c)
    silhouette: float
    imbalance: float  # beyond what n images have by chance, (K - 1) / 2n
    agreement: float  # share of the images that two heads put into the same cluster


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,  # noqa: ARG001 - of all methods; this one needs no GPU
) -> Found:
    """Cluster images without any setting.

    Features are scaled to unit length, centered and partly whitened in 256 principal directions.
    Over a hundred partitions of several kinds are found (:func:`find_partitions`), and judged
    without labels by two criteria: one looks for compact clusters in which neighbors agree,
    whatever their sizes (:meth:`Quality.cost`); one for clusters of equal size in which
    neighbors agree (:meth:`Quality.balanced_cost`). By each, 10 partitions become heads that are
    trained until neighbors agree (UNIC, Eq. 6), with the sizes they start from, or equal ones, as
    the prior in place of the entropy of Eq. 8; the best 6 of these are averaged. Of the two
    consensuses the balanced one is taken unless classes seem unequal (:func:`prefers_balance`).

    New images are given half by their own features, half by their 10 nearest training images.
    Where labels are known (GCD), labeled images keep their cluster in all partitions, and the
    cross-entropy of their labels is added to the loss; they are given their label at the end.

    Args:
        inputs: Features of all splits, known labels.
        n_clusters: K.
        generator: Source of all random numbers.
        device: Not used: all is done on the CPU.

    Returns:
        Clusters of all splits; confidence is the mean probability.

    Raises:
        ValueError: If the inputs do not fit together, see
            :func:`unic.baselines.checks.check_inputs`, or a known label is not below K.
    """
    train = check_inputs(inputs, n_clusters)
    known = inputs.known_labels  # (n,)
    check_known_labels(known, len(train), n_clusters=n_clusters)
    directions = find_directions(train)
    white = {
        split: directions.transform(features, whitening=WHITENING["white"])
        for split, features in inputs.features.items()
    }
    neighbors = _find_neighbors(white["train"])  # (n, k)
    rows = np.arange(len(train))
    if len(train) > MAX_SAMPLE:
        drawn = torch.randperm(len(train), generator=generator)[:MAX_SAMPLE]
        rows = np.sort(drawn.numpy())
    points = {
        space: directions.transform(train[rows], whitening=exponent)
        for space, exponent in WHITENING.items()
    }
    space = _connect(points, neighbors if len(rows) == len(train) else None)
    partitions = find_partitions(
        space.points,
        space.graphs,
        n_clusters=n_clusters,
        counts=choose_counts(n_clusters),
        known_labels=known[rows],
        generator=generator,
    )
    quality = judge_partitions(space, partitions, n_clusters)
    consensuses = []
    for cost, is_balanced in ((quality.cost(), False), (quality.balanced_cost(), True)):
        chosen = partitions[np.argsort(cost, kind="stable")[:N_HEADS]]
        heads = start_heads(space.points["white"], chosen, n_clusters)
        consensuses.append(
            _train(
                heads, chosen, white["train"], neighbors, known, space, rows, is_balanced, generator
            )
        )
    free, balanced = consensuses
    best = balanced if prefers_balance(free, balanced) else free
    for name, each in (("free", free), ("equal", balanced)):
        logger.info(
            "sizes %s: silhouette %.4f, imbalance %.3f, heads agree on %.1f %%%s",
            name,
            each.silhouette,
            each.imbalance,
            100 * each.agreement,
            "; taken" if each is best else "",
        )
    found: Found = {}
    for split, own in white.items():
        near = neighbors if split == "train" else _find_nearest(own, white["train"])
        probs = average(best.heads.predict(own), best.orders)  # (n, c)
        confidence, clusters = smooth(probs, best.probs, near).max(dim=1)
        found[split] = clusters.numpy(), confidence.clamp(0.0, 1.0).numpy()
    clusters_of_train, confidence_of_train = found["train"]
    found["train"] = np.where(known >= 0, known, clusters_of_train), confidence_of_train
    return found


def prefers_balance(free: Consensus, balanced: Consensus) -> bool:
    """Whether clusters of equal sizes are to be taken in place of those of any sizes.

    Equal sizes are an assumption. Where it holds, heads find the same clusters from whatever start;
    or clusters whose sizes are free come out nearly equal by themselves, and equal ones are nearly
    as compact. Where it does not hold, equal sizes split large classes, each head in its own way,
    and join small ones.

    So they are taken if their heads agree on 95 % of the images; or if free sizes lack less than
    0.1 nats of the entropy of equal ones, and equal sizes keep 95 % of the silhouette.

    Args:
        free: Consensus of heads whose sizes are free.
        balanced: Of heads whose sizes are to be equal.
    """
    is_compact = balanced.silhouette >= BALANCED_SHARE * free.silhouette
    is_alike = free.imbalance <= MAX_IMBALANCE
    return balanced.agreement >= UNANIMITY or (is_alike and is_compact)


def judge_partitions(space: Space, partitions: NDArray[np.int64], n_clusters: int) -> Quality:
    """Judge partitions ``(s, n)`` by the heads that start from them."""
    fits = []
    for clusters in partitions:
        heads = start_heads(space.points["white"], clusters[None], n_clusters)
        fits.append(measure_fit(heads.predict(space.points["white"]), space.neighbors))
    silhouettes = [
        centroid_silhouette(space.points["half"], each, n_clusters) for each in partitions
    ]
    return Quality(
        np.array(silhouettes),
        np.concatenate([fit.disagreement for fit in fits]),
        np.concatenate([fit.imbalance for fit in fits]),
    )


def judge_heads(space: Space, probs: Tensor) -> Quality:
    """Judge heads by their probabilities ``(n, h, c)`` of the images of a space."""
    fit = measure_fit(probs, space.neighbors)
    clusters = probs.argmax(2).T.numpy()  # (h, n)
    n_clusters = probs.shape[2]
    silhouettes = [centroid_silhouette(space.points["half"], each, n_clusters) for each in clusters]
    return Quality(np.array(silhouettes), fit.disagreement, fit.imbalance)


def _train(
    heads: Heads,
    partitions: NDArray[np.int64],
    points: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    known_labels: NDArray[np.int64],
    space: Space,
    rows: NDArray[np.int64],
    is_balanced: bool,
    generator: torch.Generator,
) -> Consensus:
    """Train heads from partitions of a space, and take the consensus of the best."""
    n_clusters = heads.weights.shape[1]
    sizes = np.stack([np.bincount(each, minlength=n_clusters) + 1.0 for each in partitions])
    priors = np.ones_like(sizes) if is_balanced else sizes  # (h, c)
    priors = (priors / priors.sum(1, keepdims=True)).astype(np.float32)
    trained = train_heads(
        heads,
        points,
        neighbors,
        priors=priors,
        known_labels=known_labels,
        settings=Training(),
        generator=generator,
    )
    quality = judge_heads(space, trained.predict(space.points["white"]))
    cost = quality.balanced_cost() if is_balanced else quality.cost()
    best = trained.select(np.argsort(cost, kind="stable")[:N_KEPT])
    probs = best.predict(points)  # (n, h, c)
    orders = match_clusters(probs)
    consensus = average(probs, orders)  # (n, c)
    total = judge_heads(space, consensus[torch.from_numpy(rows), None])
    return Consensus(
        best,
        orders,
        consensus,
        silhouette=float(total.silhouette[0]),
        imbalance=float(total.imbalance[0]) - (n_clusters - 1) / (2 * len(rows)),
        agreement=measure_agreement(probs),
    )


def _connect(points: Mapping[str, NDArray[np.float32]], white: NDArray[np.int64] | None) -> Space:
    """Graphs of the whitened and the plain space; neighbors in the former may be known."""
    neighbors = _find_neighbors(points["white"]) if white is None else white  # (n, k)
    own = np.arange(len(neighbors))[:, None]
    plain = _find_neighbors(points["plain"])  # (n, k)
    graphs = {
        "white": join_neighbors(np.hstack([own, neighbors])),
        "plain": join_neighbors(np.hstack([own, plain])),
    }
    return Space(points, graphs, neighbors)


def _find_neighbors(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """The 10 nearest of each point, without itself: ``(n, k)``."""
    n_neighbors = min(N_NEIGHBORS + 1, len(points))
    return mine_neighbors(points, n_neighbors=n_neighbors, far_rank=None).indices[:, 1:]


def _find_nearest(points: NDArray[np.float32], training: NDArray[np.float32]) -> NDArray[np.int64]:
    """The training points of the highest cosine to each point: ``(n, k)``."""
    known = torch.from_numpy(training)
    n_nearest = min(N_NEIGHBORS, len(training))
    nearest = [
        (block @ known.T).topk(n_nearest, dim=1).indices
        for block in torch.from_numpy(points).split(_BLOCK_ROWS)
    ]
    return torch.cat(nearest).numpy()
