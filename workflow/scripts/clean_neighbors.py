"""Keep the neighbors of images whose second-order neighborhood is small (Eq. 4)."""

from unic.cleaning import clean_neighbors
from unic.jobs import job
from unic.store import check_same_images, open_store, write_derived

with job(snakemake.log[0], threads=snakemake.threads):
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(neighbors, known)
    positives = clean_neighbors(
        neighbors.read("indices"),
        max_union_size=snakemake.params.max_union_size,
        known_labels=known.read("known_labels"),
    )
    write_derived(
        snakemake.output.positives,
        "positives",
        positives._asdict(),
        of=neighbors,
        parameters={"max_union_size": snakemake.params.max_union_size},
    )
