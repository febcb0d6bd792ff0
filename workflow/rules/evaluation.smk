def baselines(wildcards):
    """Scores of the baselines of an experiment."""
    sources = ["features", "finetuned"]
    if settings_of(wildcards)["kmeans"]["pixels"]:
        sources.append("pixels")
    return expand(
        "results/{experiment}/baselines/kmeans_{source}.json",
        experiment=wildcards.experiment,
        source=sources,
    )


def own_scores(wildcards):
    """Scores of every seed of an experiment."""
    return expand(
        "results/{experiment}/seed{seed}/metrics.json",
        experiment=wildcards.experiment,
        seed=settings_of(wildcards)["seeds"],
    )


rule evaluate:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        predictions=artifact("predict", "seed{seed}/predictions.parquet"),
    output:
        scores="results/{experiment}/seed{seed}/metrics.json",
    log:
        "logs/{experiment}/seed{seed}/evaluate.log",
    benchmark:
        "logs/{experiment}/seed{seed}/evaluate.tsv"
    conda:
        "../../environment.yml"
    params:
        code=script_digest("evaluate.py"),
    message:
        "Scoring the clusters of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate.py"


use rule evaluate as evaluate_baseline with:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        predictions=artifact("cluster_{source}", "baselines/kmeans_{source}.parquet"),
    output:
        scores="results/{experiment}/baselines/kmeans_{source}.json",
    log:
        "logs/{experiment}/baselines/evaluate_{source}.log",
    benchmark:
        "logs/{experiment}/baselines/evaluate_{source}.tsv"
    message:
        "Scoring k-means on the {wildcards.source} of {wildcards.experiment}"


rule summarize:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        scores=own_scores,
        baselines=baselines,
        histories=artifact_of_seeds("finetune", "seed{seed}/history.csv"),
        predictions=artifact_of_seeds("predict", "seed{seed}/predictions.parquet"),
    output:
        metrics="results/{experiment}/metrics.json",
        report="results/{experiment}/report.html",
        figures=directory("results/{experiment}/figures"),
    log:
        "logs/{experiment}/summarize.log",
    benchmark:
        "logs/{experiment}/summarize.tsv"
    conda:
        "../../environment.yml"
    params:
        data=value("data.name"),
        root=value("data.root"),
        n_clusters=value("n_clusters"),
        seeds=value("seeds"),
        max_union_size=value("cleaning.max_union_size"),
        code=script_digest("summarize.py"),
    message:
        "Summarizing {wildcards.experiment}"
    script:
        "../scripts/summarize.py"
