"""Estimate how many clusters images fall into, by their features and by known labels."""

import torch

from unic.quality.n_clusters import estimate_n_clusters
from unic.report.figures import encode_png, plot_n_clusters
from unic.runtime.jobs import job
from unic.storage.files import whole_file, write_json
from unic.storage.stores import check_same_images, open_store

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(features, known)
    estimate = estimate_n_clusters(
        features.read("features"),
        known_labels=known.read("known_labels"),
        generator=torch.Generator().manual_seed(0),
    )
    with whole_file(snakemake.output.figure) as figure:
        figure.write_bytes(encode_png(plot_n_clusters(estimate.record())))
    write_json(snakemake.output.estimate, estimate.record())
