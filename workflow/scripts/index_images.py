"""List the images of an experiment and check that its numbers fit them."""

from unic.data.index import index_images, write_index
from unic.jobs import job

with job(snakemake.log[0]):
    name, root = snakemake.params.name, snakemake.params.root
    ids = index_images(
        name,
        root=root,
        n_clusters=snakemake.params.n_clusters,
        far_rank=snakemake.params.far_rank,
        manifest=snakemake.input.get("manifest"),
    )
    write_index(snakemake.output.images, ids, name=name, root=root)
