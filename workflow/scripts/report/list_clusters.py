"""List which image is in which cluster, by the seed that is shown, and draw the clusters."""

from unic.images.datasets import open_images
from unic.images.index import read_source
from unic.report.cluster_lists import list_predictions, write_sheets
from unic.runtime.jobs import job
from unic.storage.files import read_json, read_parquet, write_csv, write_parquet
from unic.storage.stores import open_store

with job(snakemake.log[0]):
    metrics = read_json(snakemake.input.metrics)
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    predictions = dict(zip(snakemake.params.seeds, snakemake.input.predictions, strict=True))
    table = list_predictions(
        read_parquet(predictions[metrics["shown"]["seed"]]),
        names=known.parameters("known_labels")["class_names"],
        known_labels=known.read("known_labels"),
        is_named=snakemake.params.is_named,
    )
    source = read_source(snakemake.input.images)
    images = open_images(source.name, table["path"].tolist(), root=source.root)
    write_sheets(
        snakemake.output.sheets, table, images.__getitem__, n_clusters=metrics["n_clusters"]
    )
    write_parquet(snakemake.output.parquet, table)
    write_csv(snakemake.output.csv, table)
