"""Cluster features by a method that is given by its module, for every seed."""

from importlib import import_module

from unic.baselines.methods import MethodInputs, method_predictions
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.storage.prediction_tables import write_predictions
from unic.storage.stores import check_same_images, open_store, read_splits

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(features, neighbors, known)
    predictions, times = method_predictions(
        import_module(snakemake.params.module).cluster,
        MethodInputs(
            read_splits(features, "features"),
            neighbors.read("indices"),
            known.read("known_labels"),
        ),
        {split: features.read_image_ids(split=split) for split in features.splits},
        method=snakemake.wildcards.method,
        seeds=snakemake.params.seeds,
        n_clusters=snakemake.params.n_clusters,
        device=choose_device(snakemake.resources.device),
    )
    write_csv(snakemake.output.times, times)
    write_predictions(snakemake.output.predictions, predictions)
