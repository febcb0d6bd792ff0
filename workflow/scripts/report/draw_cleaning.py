"""Draw a kept and a discarded image among their neighbors (Fig. 13)."""

from functools import partial

from unic.evaluation.groups import read_groups
from unic.evaluation.neighborhoods import choose_neighborhoods, tabulate_neighborhoods
from unic.images.datasets import open_images
from unic.images.index import read_index, read_source
from unic.report.figures import write_figure
from unic.report.neighbor_figures import plot_neighborhoods
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.storage.stores import check_same_images, open_store

with job(snakemake.log[0]):
    ids = read_index(snakemake.input.images)["train"]
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    positives = open_store(snakemake.input.positives, kind="positives")
    labels = open_store(snakemake.input.labels, kind="labels")
    check_same_images(features, neighbors, positives, labels)
    groups = read_groups(
        labels,
        ids,
        metrics=snakemake.input.get("metrics"),
        predictions=snakemake.input.get("predictions", []),
        seeds=snakemake.params.seeds,
    )
    found = choose_neighborhoods(
        positives.read("union_size"),
        neighbors.read("indices"),
        partial(features.read_rows, "features"),
        groups.numbers,
        metric=neighbors.parameters("neighbors")["metric"],
        max_union_size=positives.parameters("positives")["max_union_size"],
    )
    source = read_source(snakemake.input.images)
    images = open_images(source.name, ids, root=source.root)
    members = tabulate_neighborhoods(found, ids)
    figure = plot_neighborhoods(
        members,
        images.__getitem__,
        experiment=snakemake.wildcards.experiment,
        kind=groups.kind,
    )
    write_figure(figure, png=snakemake.output.png, svg=snakemake.output.svg)
    write_csv(snakemake.output.csv, members)
