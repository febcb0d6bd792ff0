"""Say what can be said of clusters and images without true labels."""

from unic.evaluation.metrics import name_clusters
from unic.images.datasets import open_images
from unic.images.index import read_source
from unic.quality.examination import examine
from unic.quality.reading import choose_labels, read_runs
from unic.report.quality_page import build_quality_page
from unic.runtime.jobs import job
from unic.storage.files import read_json, write_csv, write_json, write_text
from unic.storage.stores import check_same_images, open_store

with job(snakemake.log[0], threads=snakemake.threads):
    metrics = read_json(snakemake.input.metrics)
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    truth = open_store(snakemake.input.labels, kind="labels")
    check_same_images(features, neighbors, known, truth)
    labels, class_names = choose_labels(truth, known)
    runs = read_runs(snakemake.input.predictions, seeds=snakemake.params.seeds)
    shown = metrics["shown"]["seed"]
    names = name_clusters(
        runs[shown]["cluster"].to_numpy(),
        known.read("known_labels"),
        known.parameters("known_labels")["class_names"],
        n_clusters=metrics["n_clusters"],
    )
    found = examine(
        features.read("features"),
        neighbors.read("indices"),
        neighbors.read("distances"),
        runs,
        shown=shown,
        n_clusters=metrics["n_clusters"],
        labels=labels,
        class_names=class_names,
    )
    source = read_source(snakemake.input.images)
    images = open_images(source.name, features.read_image_ids(), root=source.root)
    page = build_quality_page(
        found.quality,
        found.tables,
        images.__getitem__,
        experiment=snakemake.wildcards.experiment,
        names=names,
    )
    write_csv(snakemake.output.duplicates, found.tables["duplicates"])
    write_csv(snakemake.output.outliers, found.tables["outliers"])
    write_csv(snakemake.output.suspects, found.tables["suspects"])
    write_json(snakemake.output.quality, found.quality)
    write_text(snakemake.output.page, page)
