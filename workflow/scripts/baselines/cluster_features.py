"""Run k-means on features, as the baseline of every seed."""

from unic.baselines.comparison import kmeans_predictions
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.prediction_tables import write_predictions
from unic.storage.stores import open_store, read_splits

with job(snakemake.log[0], threads=snakemake.threads):
    stores = [open_store(path, kind="features") for path in snakemake.input.features]
    predictions = kmeans_predictions(
        [read_splits(store, "features") for store in stores],
        {split: stores[0].read_image_ids(split=split) for split in stores[0].splits},
        method=snakemake.params.method,
        seeds=snakemake.params.seeds,
        n_clusters=snakemake.params.n_clusters,
        n_restarts=snakemake.params.n_restarts,
        device=choose_device(snakemake.resources.device),
    )
    write_predictions(snakemake.output.predictions, predictions)
