"""Take the pixels of the evaluation view as features, for a baseline without a network."""

from unic.features.extraction import extract_pixels
from unic.images.datasets import open_images
from unic.images.index import read_index
from unic.images.views import View
from unic.runtime.jobs import job
from unic.storage.stores import write_features

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)
    features = {
        split: extract_pixels(
            open_images(snakemake.params.data, ids[split], root=snakemake.params.root),
            View(**snakemake.params.view),
            n_workers=snakemake.threads,
        )
        for split in ids
    }
    write_features(snakemake.output.features, features, ids, backbone=None)
