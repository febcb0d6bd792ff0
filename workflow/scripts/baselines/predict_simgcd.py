"""Ask SimGCD's classifier for the cluster of every image, as a baseline."""

from unic.models.cosine_classifier import load_classifier
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.prediction_tables import tabulate, write_predictions
from unic.storage.stores import open_store, read_splits
from unic.training.prediction import predict_clusters

with job(snakemake.log[0], threads=snakemake.threads):
    device = choose_device(snakemake.resources.device)
    store = open_store(snakemake.input.features, kind="features")
    classifier = load_classifier(snakemake.input.classifier)
    clusters = {
        split: predict_clusters(classifier, rows, device=device)
        for split, rows in read_splits(store, "features").items()
    }
    ids = {split: store.read_image_ids(split=split) for split in store.splits}
    predictions = tabulate("simgcd", snakemake.params.seed, ids, clusters)
    write_predictions(snakemake.output.predictions, predictions)
