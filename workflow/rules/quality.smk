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
    threads: value("machine.threads")
    params:
        code=script_digest("quality/estimate_n_clusters.py"),
    message:
        "Estimating the number of clusters of {wildcards.experiment}"
    script:
        "../scripts/quality/estimate_n_clusters.py"
