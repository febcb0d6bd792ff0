"""Ask a trained model for the cluster and the features of every image."""

from unic.images.decoded import open_pixels
from unic.images.index import read_index
from unic.images.views import View
from unic.models.trained import load_model
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.prediction_tables import tabulate, write_predictions
from unic.storage.stores import check_images, open_store, write_features
from unic.training.prediction import Prediction, predict_clusters, predict_images

with job(snakemake.log[0], threads=snakemake.threads):
    device = choose_device(snakemake.resources.device)
    ids = read_index(snakemake.input.images)
    model = load_model(snakemake.input.model)
    given, found = snakemake.input.get("features"), {}
    for split in ids:
        if given is not None:
            store = open_store(given, kind="features")
            check_images(store, ids[split], split=split)
            features = store.read("features", split=split)
            clusters = predict_clusters(model.head, features, device=device)
            found[split] = Prediction(features, *clusters)
        else:
            found[split] = predict_images(
                model,
                open_pixels(
                    snakemake.params.data,
                    ids[split],
                    root=snakemake.params.root,
                    decoded=snakemake.input.get("decoded"),
                ),
                View(**snakemake.params.view),
                batch_size=snakemake.resources.batch_size,
                device=device,
                n_workers=snakemake.threads,
            )
    features = {split: prediction.features for split, prediction in found.items()}
    write_features(snakemake.output.features, features, ids, backbone=snakemake.input.model)
    clusters = {split: prediction[1:] for split, prediction in found.items()}
    predictions = tabulate("unic", int(snakemake.wildcards.seed), ids, clusters)
    write_predictions(snakemake.output.predictions, predictions)
