"""List the images of an experiment and check that its numbers fit them."""

from unic.images.index import write_index
from unic.images.listing import index_images
from unic.runtime.jobs import job

with job(snakemake.log[0]):
    name, root = snakemake.params.name, snakemake.params.root
    listing = index_images(
        name,
        root=root,
        n_clusters=snakemake.params.n_clusters,
        far_rank=snakemake.params.far_rank,
        manifest=snakemake.input.get("manifest"),
        bad_images=snakemake.params.bad_images,
        imbalance_ratio=snakemake.params.imbalance_ratio,
        n_workers=snakemake.threads,
    )
    write_index(snakemake.output.images, listing.ids, name=name, root=root, skipped=listing.skipped)
