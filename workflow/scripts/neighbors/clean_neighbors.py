"""Keep the neighbors of images whose second-order neighborhood is small (Eq. 4)."""

from unic.neighbors.cleaning import clean_neighbors
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.stores import check_same_images, open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(neighbors, known)
    positives = clean_neighbors(
        neighbors.read("indices"),
        max_union_size=snakemake.params.max_union_size,
        quantile=snakemake.params.quantile,
        known_labels=known.read("known_labels"),
        device=choose_device(snakemake.resources.device),
    )
    write_derived(
        snakemake.output.positives,
        "positives",
        positives.arrays(),
        of=neighbors,
        parameters={
            "max_union_size": positives.max_union_size,
            "quantile": snakemake.params.quantile,
        },
    )
