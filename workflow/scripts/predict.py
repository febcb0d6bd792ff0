"""Ask a trained model for the cluster and the features of every image."""

from unic.data.decoded import open_pixels
from unic.data.index import read_index
from unic.data.views import View
from unic.devices import choose_device
from unic.jobs import job
from unic.models import load_model
from unic.prediction import (
    Prediction,
    predict_clusters,
    predict_images,
    tabulate,
    write_predictions,
)
from unic.store import check_images, open_store, write_features

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
