"""Draw the negatives of every image from beyond the far rank (Eq. 3)."""

import numpy as np

from unic.devices import choose_device
from unic.distances import to_euclidean
from unic.jobs import job
from unic.negatives import index_negatives
from unic.store import check_same_images, open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(features, neighbors, known)
    mined = neighbors.attributes["parameters"]
    negatives = index_negatives(
        to_euclidean(features.read("features"), mined["metric"]),
        neighbors.read("far_radius"),
        far_rank=mined["far_rank"],
        is_bound=mined["far_radius"] == "bound",
        n_negatives=snakemake.params.n_negatives,
        known_labels=known.read("known_labels"),
        generator=np.random.default_rng(snakemake.params.seed),
        exclude_known_same_label=snakemake.params.exclude_known_same_label,
        device=choose_device(snakemake.resources.device),
    )
    write_derived(
        snakemake.output.negatives,
        "negatives",
        {"indices": negatives},
        of=neighbors,
        parameters={"negatives_seed": snakemake.params.seed},
    )
