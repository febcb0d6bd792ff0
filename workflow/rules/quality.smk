rule estimate_n_clusters:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        estimate="results/{experiment}/n_clusters.json",
        figure="results/{experiment}/n_clusters.png",
    log:
        "logs/{experiment}/estimate_n_clusters.log",
    benchmark:
        "logs/{experiment}/estimate_n_clusters.tsv"
    conda:
        "../../environment.yml"
    threads: 1  # as fit_consensus
    params:
        code=script_digest("quality/estimate_n_clusters.py"),
    message:
        "Estimating the number of clusters of {wildcards.experiment}"
    script:
        "../scripts/quality/estimate_n_clusters.py"


rule examine_images:
    input:
        images=artifact("index_images", "images.parquet"),
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        metrics="results/{experiment}/metrics.json",
        predictions=decide(stages.predictions),
    output:
        quality="results/{experiment}/quality.json",
        page="results/{experiment}/quality.html",
        duplicates="results/{experiment}/duplicates.csv",
        outliers="results/{experiment}/outliers.csv",
        suspects="results/{experiment}/suspects.csv",
    log:
        "logs/{experiment}/examine_images.log",
    benchmark:
        "logs/{experiment}/examine_images.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        seeds=value("seeds"),
        is_named=decide(stages.has_named_clusters),
        code=script_digest("quality/examine_images.py"),
    message:
        "Examining the images of {wildcards.experiment}: duplicates, outliers, suspects"
    script:
        "../scripts/quality/examine_images.py"
