"""Take the pixels of the evaluation view as features, for a baseline without a network."""

from unic.data.datasets import open_images
from unic.data.index import read_index
from unic.data.views import View
from unic.features import extract_pixels
from unic.jobs import job
from unic.store import write_features

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
