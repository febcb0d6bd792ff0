"""Draw the negatives of every image, from beyond the far rank (Eq. 3) or as the settings say."""

import numpy as np

from unic.neighbors.negatives import PoolSettings, index_negatives, open_pool
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.stores import open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    device = choose_device(snakemake.resources.device)
    settings = PoolSettings(**snakemake.params.pool)
    negatives = index_negatives(
        open_pool(features, neighbors, known, settings, device=device),
        n_negatives=snakemake.params.n_negatives,
        generator=np.random.default_rng(snakemake.params.seed),
    )
    write_derived(
        snakemake.output.negatives,
        "negatives",
        {"indices": negatives},
        of=neighbors,
        parameters={"seed": snakemake.params.seed} | snakemake.params.pool,
    )
