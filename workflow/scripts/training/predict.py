"""Ask a trained model for the cluster and the features of every image."""

from unic.images.index import read_index
from unic.images.source import ImageSource
from unic.models.trained import load_model
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.prediction_tables import tabulate, write_predictions
from unic.storage.stores import write_features
from unic.training.prediction import predict_splits

with job(snakemake.log[0], threads=snakemake.threads):
    device = choose_device(snakemake.resources.device)
    ids = read_index(snakemake.input.images)
    features, clusters = predict_splits(
        load_model(snakemake.input.model),
        ids,
        ImageSource.parse(snakemake.params.source, decoded=snakemake.input.get("decoded")),
        features=snakemake.input.get("features"),
        batch_size=snakemake.resources.batch_size,
        device=device,
        n_workers=snakemake.threads,
        engine=snakemake.resources.engine,
    )
    write_features(snakemake.output.features, features, ids, backbone=snakemake.input.model)
    predictions = tabulate("unic", int(snakemake.wildcards.seed), ids, clusters)
    write_predictions(snakemake.output.predictions, predictions)
