"""Take the pixels of the evaluation view as features, for a baseline without a network."""

from unic.features.pixels import extract_pixels
from unic.images.index import read_index
from unic.images.source import ImageSource
from unic.runtime.jobs import job
from unic.storage.stores import write_features

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)
    source = ImageSource.parse(snakemake.params.source, decoded=None)
    features = {
        split: extract_pixels(images, source.view, n_workers=snakemake.threads)
        for split, images in source.open_splits(ids).items()
    }
    write_features(snakemake.output.features, features, ids, backbone=None)
