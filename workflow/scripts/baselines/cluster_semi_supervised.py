"""Run semi-supervised k-means on features, as the baseline of every seed."""

from unic.baselines.comparison import kmeans_predictions
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.prediction_tables import write_predictions
from unic.storage.stores import check_same_images, open_store, read_splits

with job(snakemake.log[0], threads=snakemake.threads):
    store = open_store(snakemake.input.features, kind="features")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(store, known)
    predictions = kmeans_predictions(
        [read_splits(store, "features")],
        {split: store.read_image_ids(split=split) for split in store.splits},
        method=snakemake.params.method,
        seeds=snakemake.params.seeds,
        n_clusters=snakemake.params.n_clusters,
        n_restarts=snakemake.params.n_restarts,
        device=choose_device(snakemake.resources.device),
        known_labels=known.read("known_labels"),
    )
    write_predictions(snakemake.output.predictions, predictions)
