"""Rank all images by distance to each image (Eqs. 1-3)."""

from pathlib import Path

from unic.devices import choose_device
from unic.distances import to_euclidean
from unic.jobs import job
from unic.mining import checkpoint_beside, mine_neighbors
from unic.store import check_store_room, open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    rows = to_euclidean(features.read("features"), snakemake.params.metric)
    sizes = {"n": len(rows), "k": snakemake.params.n_neighbors}
    check_store_room(snakemake.output.neighbors, "neighbors", sizes)
    device = choose_device(snakemake.resources.device)
    with checkpoint_beside(Path(snakemake.output.neighbors).parent, rows, device) as checkpoint:
        neighbors = mine_neighbors(
            rows,
            n_neighbors=snakemake.params.n_neighbors,
            far_rank=snakemake.params.far_rank,
            device=device,
            engine=snakemake.params.engine,
            far_bound=snakemake.params.far_radius == "bound",
            checkpoint=checkpoint,
        )
        write_derived(
            snakemake.output.neighbors,
            "neighbors",
            neighbors.arrays(),
            of=features,
            parameters={
                "n_neighbors": snakemake.params.n_neighbors,
                "far_rank": snakemake.params.far_rank,
                "far_radius": snakemake.params.far_radius,
                "metric": snakemake.params.metric,
                "mining": neighbors.stats.record(),
            },
        )
