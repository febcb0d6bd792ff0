"""Measure how far neighbors are of one class, by rank and by union size (Figs. 4, 8, 9, 10)."""

from unic.evaluation.groups import read_groups
from unic.evaluation.neighbor_curves import measure_neighbors
from unic.images.index import read_index
from unic.runtime.jobs import job
from unic.storage.files import write_csv, write_json
from unic.storage.stores import check_same_images, open_store

with job(snakemake.log[0], threads=snakemake.threads):
    features = open_store(snakemake.input.features, kind="features")
    neighbors = open_store(snakemake.input.neighbors, kind="neighbors")
    positives = open_store(snakemake.input.positives, kind="positives")
    labels = open_store(snakemake.input.labels, kind="labels")
    check_same_images(features, neighbors, positives, labels)
    groups = read_groups(
        labels,
        read_index(snakemake.input.images)["train"],
        metrics=snakemake.input.get("metrics"),
        predictions=snakemake.input.get("predictions"),
        seeds=snakemake.params.seeds,
    )
    mined = neighbors.parameters("neighbors")
    curves = measure_neighbors(
        features.read("features"),
        neighbors.read("indices"),
        positives.read("union_size"),
        groups,
        metric=mined["metric"],
        far_rank=mined["far_rank"],
        max_union_size=positives.parameters("positives")["max_union_size"],
        experiment=snakemake.wildcards.experiment,
    )
    write_csv(snakemake.output.thresholds, curves.thresholds)
    write_csv(snakemake.output.ranks, curves.ranks)
    write_csv(snakemake.output.removed, curves.removed)
    write_csv(snakemake.output.purity, curves.purity)
    write_json(snakemake.output.facts, curves.facts)
