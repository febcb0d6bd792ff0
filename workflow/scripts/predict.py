"""Ask a trained model for the cluster and the features of every image."""

from unic.data.decoded import open_pixels
from unic.data.index import read_index
from unic.data.views import View
from unic.devices import choose_device
from unic.features import extract_features
from unic.jobs import job
from unic.models import load_model
from unic.prediction import predict_clusters, tabulate, write_predictions
from unic.store import write_features

with job(snakemake.log[0], threads=snakemake.threads):
    device = choose_device(snakemake.resources.device)
    ids = read_index(snakemake.input.images)
    model = load_model(snakemake.input.model)
    features = {
        split: extract_features(
            open_pixels(
                snakemake.params.data,
                ids[split],
                root=snakemake.params.root,
                decoded=snakemake.input.get("decoded"),
            ),
            model.backbone,
            View(**snakemake.params.view),
            batch_size=snakemake.resources.batch_size,
            device=device,
            n_workers=snakemake.threads,
        )
        for split in ids
    }
    clusters = {
        split: predict_clusters(model.head, rows, device=device) for split, rows in features.items()
    }
    write_features(snakemake.output.features, features, ids, backbone=snakemake.input.model)
    predictions = tabulate("unic", int(snakemake.wildcards.seed), ids, clusters)
    write_predictions(snakemake.output.predictions, predictions)
