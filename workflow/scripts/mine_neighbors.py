"""Rank all images by distance to each image (Eqs. 1-3)."""

from unic.devices import choose_device
from unic.distances import to_euclidean
from unic.jobs import job
from unic.mining import mine_neighbors
from unic.store import open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    neighbors = mine_neighbors(
        to_euclidean(features.read("features"), snakemake.params.metric),
        n_neighbors=snakemake.params.n_neighbors,
        far_rank=snakemake.params.far_rank,
        device=choose_device(snakemake.resources.device),
    )
    write_derived(
        snakemake.output.neighbors,
        "neighbors",
        neighbors.arrays(),
        of=features,
        parameters={
            "n_neighbors": snakemake.params.n_neighbors,
            "far_rank": snakemake.params.far_rank,
            "metric": snakemake.params.metric,
            "mining": neighbors.stats.record(),
        },
    )
