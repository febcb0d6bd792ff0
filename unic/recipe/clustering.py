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
from unic.recipe.consensus import (
    average,
    match_clusters,
    measure_agreements,
    order_by_labels,
)
from unic.recipe.heads import (
    LENGTH,
    SCALE,
    Heads,
    Training,
    draw_heads,
    measure_fit,
    start_heads,
    train_heads,
)
from unic.recipe.model import N_NEIGHBORS, Model
from unic.recipe.partitions import choose_counts, find_partitions
from unic.recipe.silhouettes import centroid_silhouette
from unic.recipe.spaces import Directions, find_class_whitening, find_directions, whiten
from unic.storage.known_labels import check_known_labels

logger = logging.getLogger(__name__)

MAIN, HALF = 0.25, 0.125  # exponents of the whitening of two spaces; the plain one has none
MAX_SAMPLE = 10_000  # images that partitions are sought on
MIN_LABELED = 10  # of these, of each labeled class, or all that there are
N_HEADS = 10  # trained by each of the two criteria
N_KEPT = 6  # of these, the best once they are trained
UNLABELED = Training()
LABELED = Training(n_steps=200, learning_rate=0.03)  # from softer heads
LABELED_SCALE = 5.0
DISCOVERING = Training(  # GCD, from random heads
    n_steps=2000, learning_rate=0.003, batch_size=256, supervised=0.3, pairs_labels=True
)
N_DISCOVERING, N_DISCOVERED = 12, 9  # of these heads, and the best of them
MANY_LABELS = 0.1  # share of the images, see `balances_to_try`
MAX_LABEL_IMBALANCE = 0.05  # nats, see `balances_to_try`
MIN_COMPACTNESS = 0.88  # see `prefers_balance`
MAX_DISAGREEMENT = 1.8  # see `prefers_balance`


class Images(NamedTuple):
    """All training images."""

    coordinates: NDArray[np.float32]  # (n, r), as they are
    points: NDArray[np.float32]  # (n, r), whitened, of unit length
    neighbors: NDArray[np.int64]  # (n, k), without the images themselves
    known_labels: NDArray[np.int64]  # (n,), -1 = unknown

    @property
    def is_labeled(self) -> bool:
        """Whether a label is known."""
        return bool((self.known_labels >= 0).any())


class Space(NamedTuple):
    """The images that partitions are sought on: all, or a sample of them.

    Partitions by a graph or in the plain space cannot keep images in the cluster of their label:
    where labels are known there is no graph, and no plain space.
    """

    rows: NDArray[np.int64]  # (m,), which of all they are
    points: Mapping[str, NDArray[np.float32]]  # space to (m, r)
    graphs: Mapping[str, sp.csr_array]  # space to (m, m)
    neighbors: NDArray[np.int64]  # (m, k) among them in the main space, without themselves


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
    is_balanced: bool  # whether the heads' sizes are to be equal
    silhouette: float
    disagreement: float  # of neighbors


class Fitted(NamedTuple):
    """A model, and how it does without labels."""

    model: Model
    silhouette: float
    disagreement: float  # of neighbors
    is_balanced: bool  # whether clusters of equal sizes were taken

    @property
    def cost(self) -> float:
        """Compactness and agreement in one number, see :meth:`Quality.cost`; lower is better."""
        return float(2.0 * self.disagreement - np.log(max(self.silhouette, 1e-6)))


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,  # noqa: ARG001 - of all methods; this one needs no GPU
) -> Found:
    """Cluster images without any setting.

    Features are scaled to unit length, centered and partly whitened in 256 principal directions.
    Some hundred partitions of several kinds are found (:func:`find_partitions`), and judged
    without labels by two criteria: one looks for compact clusters in which neighbors agree,
    whatever their sizes (:meth:`Quality.cost`); one for clusters of equal size in which
    neighbors agree (:meth:`Quality.balanced_cost`). By each, 10 partitions become heads that are
    trained until neighbors agree (UNIC, Eq. 6), with the sizes they start from, or equal ones, as
    the prior in place of the entropy of Eq. 8. The best 6 of each are averaged, and of the two
    averages one is taken (:func:`prefers_balance`).

    New images are given half by their own features, half by their 10 nearest training images.

    Where labels are known, features are whitened by what varies within classes
    (:func:`find_class_whitening`). If they are many, of classes of equal sizes
    (:func:`balances_to_try`), and other classes are new (GCD), no partitions are sought: 12 heads
    of random weights are trained for equal sizes on the coordinates as they are, in small batches,
    with neighbors in the whitened space and images of the same label as positives (UNIC, Section
    3.2) and 0.3 of the labels' cross-entropy, and the best 9 are averaged. Otherwise labeled
    images keep their cluster in all partitions, and the cross-entropy is added to the loss, of a
    longer training from softer heads. Labeled images are given their label at the end.

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
    known = inputs.known_labels
    model = fit(train, known_labels=known, n_clusters=n_clusters, generator=generator).model
    found: Found = {}
    for split, predicted in model.predict_splits(inputs.features).items():
        confidence, clusters = predicted.probs.max(dim=1)
        found[split] = clusters.numpy(), confidence.clamp(0.0, 1.0).numpy()
    return found


def fit(
    train: NDArray[np.float32],
    *,
    known_labels: NDArray[np.int64],
    n_clusters: int,
    generator: torch.Generator,
) -> Fitted:
    """Learn the clusters of training images, see :func:`cluster`.

    Args:
        train: Features, shape ``(n, d)``, float32, finite.
        known_labels: Shape ``(n,)``, -1 = unknown.
        n_clusters: K, at most n.
        generator: Source of all random numbers.

    Raises:
        ValueError: If features are not finite or all of one direction, or a known label is not
            below K.
    """
    check_known_labels(known_labels, len(train), n_clusters=n_clusters)
    directions = find_directions(train)
    coordinates = directions.project(train)  # (n, r)
    whitening = directions.scales(MAIN)
    if (known_labels >= 0).any():
        whitening = find_class_whitening(coordinates, known_labels)  # (r, r)
    points = whiten(coordinates, whitening)  # (n, r)
    images = Images(coordinates, points, _find_neighbors(points), known_labels)
    space = _draw_space(directions, images, generator)
    balances = balances_to_try(known_labels)
    n_labeled_classes = len(np.unique(known_labels[known_labels >= 0]))
    is_discovery = balances == [True] and n_labeled_classes < n_clusters
    if is_discovery:
        consensuses = [_train_random(images, space, n_clusters, generator)]
    else:
        consensuses = _train_partitions(images, space, n_clusters, balances, generator)
    free, balanced = consensuses[0], consensuses[-1]  # one and the same where labels tell
    taken = balanced if prefers_balance(free, balanced) else free
    for each in consensuses:
        logger.info(
            "sizes %s: silhouette %.4f, neighbors' disagreement %.3f%s",
            "equal" if each.is_balanced else "free",
            each.silhouette,
            each.disagreement,
            "; taken" if each is taken else "",
        )
    return Fitted(
        Model(
            directions,
            whitening,
            taken.heads,
            taken.orders,
            points,
            taken.probs,
            images.neighbors,
            known_labels,
            reads_coordinates=is_discovery,
        ),
        taken.silhouette,
        taken.disagreement,
        taken.is_balanced,
    )


def balances_to_try(known_labels: NDArray[np.int64]) -> list[bool]:
    """Whether heads are trained for equal sizes: first not, then so, unless known labels tell.

    Where a tenth of the images have a label, labels are taken for a sample of their classes; of
    fewer, somebody may have chosen the numbers. Where they lack less than 0.05 nats of the entropy
    of equal ones, beyond what a sample lacks by chance, all classes are taken for equal.

    Args:
        known_labels: Shape ``(n,)``, -1 = unknown.
    """
    counts = np.bincount(known_labels[known_labels >= 0])
    shares = counts[counts > 0] / max(1, counts.sum())
    if len(shares) < 2 or counts.sum() < MANY_LABELS * len(known_labels):
        return [False, True]
    by_chance = (len(shares) - 1) / (2 * counts.sum())
    imbalance = np.log(len(shares)) + (shares * np.log(shares)).sum() - by_chance
    return [bool(imbalance < MAX_LABEL_IMBALANCE)]


def prefers_balance(free: Consensus, balanced: Consensus) -> bool:
    """Whether clusters of equal sizes are to be taken in place of those of any sizes.

    Equal sizes are an assumption, which costs little where it holds: clusters of equal sizes are
    nearly as compact as those of any sizes, and cut hardly more neighbors apart. Where it does not
    hold, they split large classes and join small ones, and one of the two suffers. So they are
    taken if they keep 88 % of the silhouette, and neighbors disagree at most 1.8 times as much.
    The two numbers were set with the scores of digits, Fashion-MNIST, CIFAR-10 and Caltech-101 in
    view (docs/log.md).

    Args:
        free: Consensus of heads whose sizes are free.
        balanced: Of heads whose sizes are to be equal.
    """
    is_compact = balanced.silhouette >= MIN_COMPACTNESS * free.silhouette
    return is_compact and balanced.disagreement <= MAX_DISAGREEMENT * free.disagreement


def judge_partitions(space: Space, partitions: NDArray[np.int64], heads: Heads) -> Quality:
    """Judge partitions ``(s, m)`` by the heads that start from them."""
    n_clusters = heads.weights.shape[1]
    points = space.points["main"]
    # One by one: the probabilities of all heads at once may not fit the memory.
    fits = [
        measure_fit(heads.select(np.array([head])).predict(points), space.neighbors)
        for head in range(len(partitions))
    ]
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


def _train_partitions(
    images: Images,
    space: Space,
    n_clusters: int,
    balances: list[bool],
    generator: torch.Generator,
) -> list[Consensus]:
    """For free and for equal sizes, or one of them: heads from the best partitions, averaged."""
    partitions = find_partitions(
        space.points,
        space.graphs,
        n_clusters=n_clusters,
        counts=choose_counts(n_clusters),
        known_labels=images.known_labels[space.rows],
        generator=generator,
    )
    heads = start_heads(space.points["main"], partitions, n_clusters)
    quality = judge_partitions(space, partitions, heads)
    settings, softness = (LABELED, LABELED_SCALE / SCALE) if images.is_labeled else (UNLABELED, 1.0)
    consensuses = []
    for is_balanced in balances:
        costs = quality.balanced_cost() if is_balanced else quality.cost()
        chosen = np.argsort(costs, kind="stable")[:N_HEADS]
        sizes = np.stack([np.bincount(partitions[h], minlength=n_clusters) + 1.0 for h in chosen])
        priors = np.ones_like(sizes) if is_balanced else sizes  # (h, c)
        trained = train_heads(
            heads.select(chosen).soften(softness),
            images.points,
            images.neighbors,
            priors=(priors / priors.sum(1, keepdims=True)).astype(np.float32),
            known_labels=images.known_labels,
            settings=settings,
            generator=generator,
        )
        consensuses.append(
            _average_best(trained, images.points, space, n_kept=N_KEPT, is_balanced=is_balanced)
        )
    return consensuses


def _train_random(
    images: Images, space: Space, n_clusters: int, generator: torch.Generator
) -> Consensus:
    """Heads of equal sizes from random starts, which labels guide to their classes, averaged."""
    length = np.sqrt(np.square(images.coordinates).sum(1, dtype=np.float64).mean())
    factor = float(LENGTH / length)
    trained = train_heads(
        draw_heads(N_DISCOVERING, n_clusters, images.coordinates.shape[1], generator=generator),
        images.coordinates * np.float32(factor),
        images.neighbors,
        priors=np.full((N_DISCOVERING, n_clusters), 1 / n_clusters, dtype=np.float32),
        known_labels=images.known_labels,
        settings=DISCOVERING,
        generator=generator,
    ).rescale(factor)
    found = _average_best(trained, images.coordinates, space, n_kept=N_DISCOVERED, is_balanced=True)
    # Of few labels a class, heads may have learned the cluster but not its number.
    order = order_by_labels(found.probs, images.known_labels)
    return found._replace(orders=found.orders[:, order], probs=found.probs[:, order])


def _average_best(
    heads: Heads,
    inputs: NDArray[np.float32],
    space: Space,
    *,
    n_kept: int,
    is_balanced: bool,
) -> Consensus:
    """Average the best heads, each matched to those before it, first those that agree the most."""
    fit = judge_heads(space, heads.predict(inputs[space.rows]))
    costs = fit.balanced_cost() if is_balanced else fit.cost()
    heads = heads.select(np.argsort(costs, kind="stable")[:n_kept])
    probs = heads.predict(inputs)  # (n, h, c)
    order = np.argsort(-measure_agreements(probs).mean(axis=1), kind="stable")
    probs = probs[:, torch.from_numpy(order)]
    orders = match_clusters(probs)
    mean = average(probs, orders)  # (n, c)
    quality = judge_heads(space, mean[torch.from_numpy(space.rows), None])
    return Consensus(
        heads.select(order),
        orders,
        mean,
        is_balanced=is_balanced,
        silhouette=float(quality.silhouette[0]),
        disagreement=float(quality.disagreement[0]),
    )


def _draw_space(directions: Directions, images: Images, generator: torch.Generator) -> Space:
    """The images to seek partitions on, with their graphs in the main and the plain space."""
    coordinates = images.coordinates
    n_images = len(coordinates)
    rows, neighbors = np.arange(n_images), images.neighbors
    if n_images > MAX_SAMPLE:
        rows = draw_sample(images.known_labels, MAX_SAMPLE, generator=generator)
        neighbors = _find_neighbors(images.points[rows])  # (m, k)
    points = {
        "main": images.points[rows],
        "half": whiten(coordinates[rows], directions.scales(HALF)),
    }
    if (images.known_labels[rows] >= 0).any():
        return Space(rows, points, {}, neighbors)
    points["plain"] = whiten(coordinates[rows], directions.scales(0.0))
    graphs = {
        name: join_neighbors(np.hstack([np.arange(len(rows))[:, None], near]))
        for name, near in (("main", neighbors), ("plain", _find_neighbors(points["plain"])))
    }
    return Space(rows, points, graphs, neighbors)


def draw_sample(
    known_labels: NDArray[np.int64], n_drawn: int, *, generator: torch.Generator
) -> NDArray[np.int64]:
    """Draw images at random, and of each labeled class at least 10 labeled ones, or all there are.

    A cluster that is given labels must have images from which it starts.

    Args:
        known_labels: Shape ``(n,)``, -1 = unknown.
        n_drawn: Number of images, at most n; more if labeled classes need more.
        generator: Source of all random numbers.

    Returns:
        Rows, ascending, of shape ``(n_drawn,)``.
    """
    order = torch.randperm(len(known_labels), generator=generator).numpy()
    labels = known_labels[order]
    is_first = np.zeros(len(order), dtype=bool)
    for label in np.unique(labels[labels >= 0]):
        is_first[np.flatnonzero(labels == label)[:MIN_LABELED]] = True
    first = np.concatenate([order[is_first], order[~is_first]])
    return np.sort(first[: max(n_drawn, int(is_first.sum()))])


def _find_neighbors(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """The 10 nearest of each point, without itself: ``(n, k)``."""
    n_neighbors = min(N_NEIGHBORS + 1, len(points))
    return mine_neighbors(points, n_neighbors=n_neighbors, far_rank=None).indices[:, 1:]
