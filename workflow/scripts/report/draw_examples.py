"""Draw images of clusters: surest and least sure ones, and false positives (Figs. 12, 14-16)."""

import numpy as np

from unic.evaluation.cluster_examples import choose_examples, count_old, part_of_figure
from unic.evaluation.scores import make_truth
from unic.evaluation.summary import choose_shown
from unic.images.datasets import open_images
from unic.images.index import read_index, read_source
from unic.report.cluster_figures import plot_examples
from unic.report.figures import write_figure
from unic.runtime.jobs import job
from unic.storage.files import read_json, read_parquet, write_csv
from unic.storage.stores import open_store

with job(snakemake.log[0]):
    truth = make_truth(
        read_index(snakemake.input.images),
        open_store(snakemake.input.labels, kind="labels"),
        open_store(snakemake.input.known_labels, kind="known_labels"),
    )
    metrics = read_json(snakemake.input.metrics)
    predictions = dict(zip(snakemake.params.seeds, snakemake.input.predictions, strict=True))
    shown = choose_shown(read_parquet(predictions[metrics["shown"]["seed"]]), truth)
    part = part_of_figure(snakemake.wildcards.number)
    examples = choose_examples(
        shown,
        n_clusters=metrics["n_clusters"],
        part=part,
        n_old=count_old(truth),
        generator=np.random.default_rng(0),
    )
    source = read_source(snakemake.input.images)
    ids = shown.predictions["image_id"].tolist()
    figure = plot_examples(
        examples,
        open_images(source.name, ids, root=source.root).__getitem__,
        experiment=snakemake.wildcards.experiment,
        split=shown.split,
        part=part,
    )
    write_figure(figure, png=snakemake.output.png, svg=snakemake.output.svg)
    write_csv(snakemake.output.csv, examples)
