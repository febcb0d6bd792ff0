"""Decode every image once, to squares of one size."""

from unic.images.datasets import open_images
from unic.images.decoded import decode_images
from unic.images.index import read_index
from unic.runtime.jobs import job

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)
    decode_images(
        snakemake.output.header,
        {
            split: open_images(snakemake.params.data, ids[split], root=snakemake.params.root)
            for split in ids
        },
        size=snakemake.params.size,
        n_workers=snakemake.threads,
        parameters=dict(snakemake.params.items()),
    )
