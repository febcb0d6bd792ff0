rule evaluate:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        predictions=all_predictions,
    output:
        scores="results/{experiment}/scores.json",
    log:
        "logs/{experiment}/evaluate.log",
    benchmark:
        "logs/{experiment}/evaluate.tsv"
    conda:
        "../../environment.yml"
    params:
        code=script_digest("evaluate.py"),
    message:
        "Scoring the clusters of {wildcards.experiment}"
    script:
        "../scripts/evaluate.py"


rule summarize:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        scores="results/{experiment}/scores.json",
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
        stage_owners=owners,
        code=script_digest("summarize.py"),
    message:
        "Summarizing {wildcards.experiment}"
    script:
        "../scripts/summarize.py"
