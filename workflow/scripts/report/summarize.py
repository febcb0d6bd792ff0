"""Gather the scores of an experiment and draw its report."""

from unic.evaluation.scores import make_truth
from unic.evaluation.summary import choose_shown, summarize
from unic.images.datasets import open_images
from unic.images.index import read_index, read_skipped
from unic.report.page import build_report, write_report
from unic.runtime.jobs import job
from unic.storage.files import read_json, read_parquet, write_json
from unic.storage.n_clusters import read_estimate, read_n_clusters
from unic.storage.stores import open_store
from unic.training.history import read_histories

with job(snakemake.log[0]):
    truth = make_truth(
        read_index(snakemake.input.images),
        open_store(snakemake.input.labels, kind="labels"),
        open_store(snakemake.input.known_labels, kind="known_labels"),
    )
    positives = open_store(snakemake.input.positives, kind="positives")
    history = read_histories(snakemake.input.histories, seeds=snakemake.params.seeds)
    summary = summarize(
        read_json(snakemake.input.scores),
        truth,
        positives,
        history,
        experiment=snakemake.wildcards.experiment,
        method=snakemake.params.method,
        n_clusters=read_n_clusters(snakemake.params.n_clusters, snakemake.input.get("n_clusters")),
        seeds=snakemake.params.seeds,
        stage_owners=snakemake.params.stage_owners,
        skipped=read_skipped(snakemake.input.images),
    )
    predictions = dict(zip(snakemake.params.seeds, snakemake.input.predictions, strict=True))
    shown = choose_shown(read_parquet(predictions[summary["shown"]["seed"]]), truth)
    images = open_images(
        snakemake.params.data,
        shown.predictions["image_id"].tolist(),
        root=snakemake.params.root,
    )
    report = build_report(
        metrics=summary,
        history=history,
        union_size=positives.read("union_size"),
        max_union_size=summary["neighbors"]["max_union_size"],
        read_image=images.__getitem__,
        estimate=read_estimate(snakemake.input.get("n_clusters")),
        **shown._asdict(),
    )
    write_report(report, html=snakemake.output.report, figures=snakemake.output.figures)
    write_json(snakemake.output.metrics, summary)
