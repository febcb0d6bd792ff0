"""Inputs of a training: views and pairs, parsed from the parameters of a rule, and opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from unic.features.cached_views import CachedViews
from unic.features.sources import FreshViews, FrozenFeatures, TrunkSource
from unic.images.augmentations import choose_augmentation
from unic.images.index import read_index
from unic.images.loaders import ViewLoader
from unic.images.source import ImageSource
from unic.models.backbones import Backbone
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.metric import to_euclidean
from unic.neighbors.negatives import PoolSettings, open_pool
from unic.storage.digests import image_digest
from unic.storage.stores import Store, check_images, check_same_images, open_store
from unic.training.pairs import (
    FreshNegatives,
    NegativeSampler,
    Pairs,
    PositiveSampler,
    StoredNegatives,
)


@dataclass(frozen=True)
class ViewInputs:
    """Where views of the training images are from, and what they are like.

    Args:
        images: File of the index.
        source: Where pixels are.
        augmentation: See :func:`unic.images.augmentations.choose_augmentation`.
        precision: Of the trunk: ``float32``, ``bfloat16`` or ``auto``.
        frozen: Store of features of a frozen backbone, in place of views.
        tokens: Header of cached views, in place of fresh ones.
    """

    images: str
    source: ImageSource
    augmentation: str | None
    precision: str
    frozen: str | None = None
    tokens: str | None = None

    @classmethod
    def parse(cls, inputs: Mapping[str, str], params: Mapping[str, Any]) -> Self:
        """Take them from the files and parameters of a rule, by the names they have there."""
        return cls(
            images=inputs["images"],
            source=ImageSource.parse(params["source"], decoded=inputs.get("decoded")),
            augmentation=params["augmentation"],
            precision=params["precision"],
            frozen=inputs.get("frozen"),
            tokens=inputs.get("tokens"),
        )

    def open(
        self,
        backbone: Backbone,
        *,
        device: torch.device,
        n_workers: int,
        has_gradient: bool = False,
        engine: str = "auto",
        n_epochs: int = 1,
    ) -> TrunkSource:
        """Open what the trunk gives for views of the training images.

        Args:
            backbone: That is to be trained.
            device: Where outputs are wanted.
            n_workers: Threads that decode.
            has_gradient: Whether the trunk is trained through fresh views.
            engine: Of a trunk that is not, see :class:`unic.features.sources.FreshViews`.
            n_epochs: How often the images are gone through.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If features or cached views are of other images or another backbone.
        """
        ids = read_index(self.images)["train"]
        if self.frozen is not None:
            return _open_frozen(self.frozen, ids, backbone, device)
        if self.tokens is not None:
            return _open_cached(self.tokens, ids, backbone, device)
        loader = ViewLoader(
            self.source.open(ids),
            self.source.view,
            augmentation=choose_augmentation(self.augmentation),
            n_workers=n_workers,
        )
        return FreshViews(
            loader,
            backbone,
            precision=self.precision,
            device=device,
            has_gradient=has_gradient,
            engine=engine,
            n_epochs=n_epochs,
        )


@dataclass(frozen=True)
class PairInputs:
    """Where positives and negatives are from.

    Args:
        positives: Store of the cleaned neighbors.
        known_labels: Store of the labels that training may know.
        draw: When negatives are drawn: ``once``, ``each_epoch``, or ``in_batch`` for those that
            are in the batch.
        pool: Which images are negatives of which; those of ``once`` were drawn by it.
        negatives: Store of negatives that were drawn once.
        features: Else the store of the features that were mined, which heads may need too,
        neighbors: and that of their neighbors.
    """

    positives: str
    known_labels: str
    draw: str
    pool: PoolSettings
    negatives: str | None = None
    features: str | None = None
    neighbors: str | None = None

    @classmethod
    def parse(cls, inputs: Mapping[str, str], params: Mapping[str, Any]) -> Self:
        """Take them from the files and parameters of a rule, by the names they have there."""
        return cls(
            positives=inputs["positives"],
            known_labels=inputs["known_labels"],
            draw=params["draw"],
            pool=PoolSettings(**params["pool"]),
            negatives=inputs.get("negatives"),
            features=inputs.get("features"),
            neighbors=inputs.get("neighbors"),
        )

    def open(self, *, device: torch.device) -> Pairs:
        """Open what draws positives and negatives, distances being measured on a device.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the files are of different images, or labels do not allow for the pool.
        """
        positives = open_store(self.positives, kind="positives")
        known = open_store(self.known_labels, kind="known_labels")
        check_same_images(positives, known)
        sampler = PositiveSampler(positives.read("indices"), known.read("known_labels"))
        return Pairs(sampler, self.open_negatives(known, device))

    def open_features(self) -> Store:
        """Open the features that were mined.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If they are of other images than the known labels.
        """
        features = open_store(str(self.features), kind="features")
        check_same_images(features, open_store(self.known_labels, kind="known_labels"))
        return features

    def open_negatives(self, known: Store, device: torch.device) -> NegativeSampler | FarPairs:
        """What draws negatives, or tells them within a batch; see :meth:`open`."""
        if self.negatives is not None:
            negatives = open_store(self.negatives, kind="negatives")
            check_same_images(negatives, known)
            return StoredNegatives(negatives.read("indices"))
        features = open_store(str(self.features), kind="features")
        neighbors = open_store(str(self.neighbors), kind="neighbors")
        if self.draw != "in_batch":
            return FreshNegatives(open_pool(features, neighbors, known, self.pool, device=device))
        check_same_images(features, neighbors, known)
        metric = neighbors.parameters("neighbors")["metric"]
        return FarPairs(
            to_euclidean(features.read("features"), metric),
            neighbors.read("far_radius"),
            known_labels=known.read("known_labels"),
            exclude_known_same_label=self.pool.exclude_known_same_label,
            device=device,
        )


def _open_frozen(
    path: str, ids: Sequence[str], backbone: Backbone, device: torch.device
) -> FrozenFeatures:
    store = open_store(path, kind="features")
    check_images(store, ids)
    features = store.read("features")
    if features.shape[1] != backbone.n_dims:
        raise ValueError(
            f"{store.path} must hold features of the backbone's {backbone.n_dims} dims, it has "
            f"{features.shape[1]}; delete it and run the workflow again"
        )
    return FrozenFeatures(features, device=device)


def _open_cached(
    header: str, ids: Sequence[str], backbone: Backbone, device: torch.device
) -> CachedViews:
    cached = CachedViews(header, device=device)
    if cached.image_digest != image_digest(ids) or not cached.fit(backbone):
        raise ValueError(
            f"{header} must hold views of the {len(ids)} training images by this "
            "backbone, it holds others; delete it and run the workflow again"
        )
    return cached
