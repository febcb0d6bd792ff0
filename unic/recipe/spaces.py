"""Spaces that a recipe looks at features in: whitened in part, or by known labels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.neighbors.metric import check_features, to_euclidean

N_DIRECTIONS = 256
_MIN_SHARE = 1e-6  # of the first variance: what lies below is rounding


class Directions(NamedTuple):
    """Mean and principal directions of features of unit length, the first the most spread."""

    mean: NDArray[np.float32]  # (d,)
    vectors: NDArray[np.float32]  # (d, r)
    variances: NDArray[np.float32]  # (r,)

    def transform(self, features: NDArray[np.float32], *, whitening: float) -> NDArray[np.float32]:
        """Coordinates in the principal directions, partly whitened, of unit length.

        ``z = norm(D^(-w) V^T (norm(x) - mean))`` with variances ``D``: ``w = 0`` leaves their
        spread as it is, ``w = 1/2`` makes it equal. Between the two, directions of small spread,
        in which classes often differ, count for more without noise counting for all.

        Args:
            features: Shape ``(n, d)``, float32, finite.
            whitening: The exponent ``w``, in ``[0, 0.5]``.

        Returns:
            Shape ``(n, r)``, float32, of unit length; zeros where an image lies at the mean.

        Raises:
            ValueError: If features are not a finite float32 matrix of these dims.
        """
        return whiten(self.project(features), self.scales(whitening))

    def project(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coordinates ``(n, r)`` as they are, from which :func:`whiten` goes on.

        Raises:
            ValueError: As :meth:`transform`.
        """
        check_features(features)
        if features.shape[1] != len(self.mean):
            raise ValueError(f"features must have {len(self.mean)} dims, got {features.shape[1]}")
        return np.matmul(to_euclidean(features, "cosine") - self.mean, self.vectors)

    def scales(self, exponent: float) -> NDArray[np.float32]:
        """What coordinates are multiplied by to whiten them in part, ``(r,)``."""
        scales: NDArray[np.float32] = self.variances ** np.float32(-exponent)
        return scales


def whiten(coordinates: NDArray[np.float32], whitening: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinates that are whitened, then scaled to unit length.

    Args:
        coordinates: Shape ``(n, r)``.
        whitening: A factor for each, ``(r,)``, or a map from the right, ``(r, r)``.
    """
    is_map = whitening.ndim == 2
    spread = coordinates @ whitening if is_map else coordinates * whitening  # (n, r)
    return to_euclidean(spread, "cosine")


def find_class_whitening(
    coordinates: NDArray[np.float32], known_labels: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Find the map by which labeled classes spread alike in all directions.

    ``S^(-1/2)`` with the covariance of labeled images about the mean of their class, half of it
    shrunk to a multiple of the identity (within-class covariance normalization; Hatch et al.,
    2006). What varies within classes that are known varies within new ones, too. Few labels say
    little of a covariance: with ``l`` of them, ``S`` is a share ``l / (l + r)`` of that one, the
    rest of it the square root of the variances of all images, each of a trace of ``r``. By the
    latter alone, points are those that :data:`unic.recipe.clustering.MAIN` whitens.

    Args:
        coordinates: Shape ``(n, r)``.
        known_labels: Shape ``(n,)``, -1 = unknown, some known.

    Returns:
        Shape ``(r, r)``, from the right.
    """
    labels = known_labels[known_labels >= 0]  # (l,)
    points = coordinates[known_labels >= 0].astype(np.float64)  # (l, r)
    used, own = np.unique(labels, return_inverse=True)
    means = np.stack([points[own == label].mean(axis=0) for label in range(len(used))])
    centered = points - means[own]  # (l, r)
    within = centered.T @ centered  # (r, r)
    n_dims = within.shape[0]
    total = np.trace(within)
    within = within * n_dims / total if total > 0 else np.eye(n_dims)
    spread = np.sqrt(coordinates.var(axis=0, dtype=np.float64))  # (r,)
    share = len(labels) / (len(labels) + n_dims)
    shrunk = share * (0.5 * within + 0.5 * np.eye(n_dims))  # (r, r)
    shrunk += (1.0 - share) * np.diag(spread / spread.mean())
    variances, vectors = np.linalg.eigh(shrunk)
    scales = variances**-0.5  # (r,)
    return (vectors * (scales / scales.max())).astype(np.float32)


def find_directions(features: NDArray[np.float32], n_directions: int = N_DIRECTIONS) -> Directions:
    """Find the principal directions of features, which are scaled to unit length first.

    Args:
        features: Shape ``(n, d)``, float32, finite, not all of one direction.
        n_directions: At most so many; fewer where features span fewer.

    Raises:
        ValueError: If features are not a finite float32 matrix, or all of one direction.
    """
    normalized = to_euclidean(check_features(features), "cosine")  # (n, d)
    mean = normalized.mean(axis=0, dtype=np.float64).astype(np.float32)  # (d,)
    centered = normalized - mean  # (n, d)
    covariance = (centered.T @ centered).astype(np.float64) / len(centered)  # (d, d)
    variances, vectors = np.linalg.eigh(covariance)  # ascending
    n_kept = int((variances > _MIN_SHARE * variances[-1]).sum()) if variances[-1] > 0 else 0
    n_kept = min(n_kept, n_directions, len(features) - 1)
    if variances[-1] < np.finfo(np.float32).eps ** 2 or n_kept < 1:
        raise ValueError("features must differ in direction, got all of one")
    best = slice(-1, -1 - n_kept, -1)
    vectors = vectors[:, best] * _signs(vectors[:, best])
    return Directions(mean, vectors.astype(np.float32), variances[best].astype(np.float32))


def _signs(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signs by which the largest entry of each column is positive, whatever the solver gave."""
    largest = np.abs(vectors).argmax(axis=0)
    return np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
