"""Spectral clustering of the graph of nearest neighbors."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from unic.baselines.assignment import vote
from unic.baselines.checks import check_inputs
from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.baselines.methods import Found, MethodInputs

logger = logging.getLogger(__name__)

N_RESTARTS = 10
_DENSE_SIZE = 200  # components up to which all eigenvectors are computed


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Cluster the rows of the leading eigenvectors of the neighbor graph by k-means.

    Two images are joined where one is among the neighbors of the other. The rows of
    :func:`embed_units` are clustered by k-means, best of 10 (Ng, Jordan and
    Weiss, 2001, there with a Gaussian affinity). Known labels are not used.

    New images are no nodes of the graph and have no row: the 10 nearest training images by cosine
    vote, and so they do for training images whose row is zero, which only happens where the graph
    falls into more than K components: K of them take all eigenvectors.

    Args:
        inputs: Neighbors of the training images, all of which are used, and features for votes.
        n_clusters: K.
        generator: Source of the seeds of k-means.
        device: Where k-means and votes are computed; eigenvectors are on the CPU.

    Returns:
        Clusters of all splits; confidence is the share of the votes, or 1.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`.
    """
    train = check_inputs(inputs, n_clusters)
    rows = embed_units(join_neighbors(inputs.neighbors), n_clusters)  # (n, c)
    has_row = rows.any(axis=1)  # (n,)
    if not has_row.all():
        logger.warning("%d images lie in components without an eigenvector", (~has_row).sum())
    units = rows[has_row]  # (m, c)
    fit = fit_kmeans(
        units, n_clusters=n_clusters, n_restarts=N_RESTARTS, generator=generator, device=device
    )
    fitted = assign_clusters(units, fit.centers, device=device)  # (m,)
    found: Found = {
        split: vote(features, train[has_row], fitted, n_clusters, device=device)
        for split, features in inputs.features.items()
    }
    clusters, confidence = found["train"]
    clusters[has_row], confidence[has_row] = fitted, 1.0
    return found


def join_neighbors(neighbors: NDArray[np.int64]) -> csr_array:
    """The union graph ``(n, n)``: 1 where one of two images is a neighbor of the other, else 0.

    Args:
        neighbors: Shape ``(n, k)``, column 0 the image itself, which is not joined with itself.
    """
    n_images, n_others = len(neighbors), neighbors.shape[1] - 1
    anchors = np.repeat(np.arange(n_images), n_others)  # (n (k - 1),)
    ones = np.ones(anchors.size)
    directed = coo_array((ones, (anchors, neighbors[:, 1:].ravel())), shape=(n_images, n_images))
    graph = csr_array(directed)
    return csr_array(graph.maximum(graph.T))


def embed_units(graph: csr_array, n_vectors: int) -> NDArray[np.float32]:
    """Rows ``(n, v)`` of :func:`embed` scaled to unit length; rows of zeros stay."""
    rows = embed(graph, n_vectors)  # (n, v)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # (n, 1)
    units: NDArray[np.float64] = rows / np.maximum(lengths, np.finfo(np.float64).tiny)
    return units.astype(np.float32)


def embed(graph: csr_array, n_vectors: int) -> NDArray[np.float64]:
    """Leading eigenvectors ``(n, v)`` of ``D^-1/2 A D^-1/2``, ``D`` the diagonal of degrees.

    They are those of the normalized Laplacian ``I - D^-1/2 A D^-1/2`` of the smallest
    eigenvalues. Each component of the graph is decomposed by itself, since the method of Lanczos,
    which starts from one vector, may miss some of several equal eigenvalues, and each component
    has an eigenvalue of 1; of equal ones those of larger components come first. An image without
    a neighbor has a row of zeros.

    Args:
        graph: Shape ``(n, n)``, symmetric, not negative, zero on the diagonal.
        n_vectors: v, at most n. Where the graph has fewer eigenvectors the last columns are 0.
    """
    n_images = graph.shape[0]
    degrees = graph.sum(axis=1)  # (n,)
    scales = np.divide(1.0, np.sqrt(degrees), out=np.zeros(n_images), where=degrees > 0)  # (n,)
    normalized = csr_array(diags_array(scales) @ graph @ diags_array(scales))  # (n, n)
    n_components, component = connected_components(graph, directed=False)
    sizes = np.bincount(component)  # (components,)
    found = []  # eigenvalue, component, vector over its images
    # More components than vectors: only the largest can have one.
    for number in np.argsort(-sizes, kind="stable")[:n_vectors]:
        if sizes[number] > 1:
            members = np.flatnonzero(component == number)  # (m,)
            values, vectors = _decompose(normalized[members][:, members], n_vectors)
            found += [
                (value, members, vector) for value, vector in zip(values, vectors.T, strict=True)
            ]
    logger.info("the graph of %d images has %d components", n_images, n_components)
    # Rounded: the eigenvalue 1 of every component is one number, and the order is kept.
    found.sort(key=lambda each: -round(each[0], 9))
    rows = np.zeros((n_images, n_vectors))  # (n, v)
    for column, (_, members, vector) in enumerate(found[:n_vectors]):
        rows[members, column] = vector
    return rows


def _decompose(
    matrix: csr_array, n_vectors: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest eigenvalues ``(v,)``, falling, and their eigenvectors ``(m, v)``."""
    size = matrix.shape[0]
    n_vectors = min(n_vectors, size)
    if size <= max(_DENSE_SIZE, 2 * n_vectors):
        values, vectors = eigh(matrix.toarray())
    else:
        # A start of the program's own would come from global random numbers.
        start = np.random.default_rng(0).normal(size=size)  # (m,)
        n_basis = min(size, max(2 * n_vectors + 1, 40))
        values, vectors = eigsh(matrix, k=n_vectors, which="LA", v0=start, ncv=n_basis)
    order = np.argsort(-values, kind="stable")[:n_vectors]
    return values[order], vectors[:, order]
