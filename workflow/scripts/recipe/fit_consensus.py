"""Cluster images by the recipe without settings, with a seed, and keep what it has learned."""

from unic.recipe.model import save_model
from unic.recipe.runs import cluster_images
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.storage.n_clusters import read_n_clusters
from unic.storage.prediction_tables import write_predictions
from unic.storage.stores import check_same_images, open_store, read_splits

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(features, known)
    run = cluster_images(
        read_splits(features, "features"),
        {split: features.read_image_ids(split=split) for split in features.splits},
        known_labels=known.read("known_labels"),
        known_names=known.parameters("known_labels")["class_names"],
        n_clusters=read_n_clusters(snakemake.params.n_clusters, snakemake.input.get("n_clusters")),
        seed=int(snakemake.wildcards.seed),
    )
    save_model(snakemake.output.model, run.model, about=run.about)
    write_csv(snakemake.output.history, run.history)
    write_predictions(snakemake.output.predictions, run.predictions)
