rule cluster_features:
    input:
        features=decide(stages.clustered_features, "source"),
    output:
        predictions="results/{experiment}/baselines/kmeans_{source}.parquet",
    log:
        "logs/{experiment}/baselines/kmeans_{source}.log",
    benchmark:
        "logs/{experiment}/baselines/kmeans_{source}.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        method="kmeans_{source}",
        seeds=value("seeds"),
        n_clusters=value("n_clusters"),
        n_restarts=value("kmeans.n_restarts"),
        code=script_digest("baselines/cluster_features.py"),
    message:
        "Running k-means on the {wildcards.source} of {wildcards.experiment}"
    script:
        "../scripts/baselines/cluster_features.py"


rule cluster_semi_supervised:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        predictions="results/{experiment}/baselines/semi_supervised_kmeans_features.parquet",
    log:
        "logs/{experiment}/baselines/semi_supervised_kmeans_features.log",
    benchmark:
        "logs/{experiment}/baselines/semi_supervised_kmeans_features.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        method="semi_supervised_kmeans_features",
        seeds=value("seeds"),
        n_clusters=value("n_clusters"),
        n_restarts=value("kmeans.n_restarts"),
        code=script_digest("baselines/cluster_semi_supervised.py"),
    message:
        "Running semi-supervised k-means on the features of {wildcards.experiment}"
    script:
        "../scripts/baselines/cluster_semi_supervised.py"


rule predict_simgcd:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        classifier=artifact("pretrain_simgcd", "simgcd/classifier.safetensors"),
    output:
        predictions="results/{experiment}/baselines/simgcd.parquet",
    log:
        "logs/{experiment}/baselines/simgcd.log",
    benchmark:
        "logs/{experiment}/baselines/simgcd.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        seed=value("pretraining.simgcd.seed"),
        code=script_digest("baselines/predict_simgcd.py"),
    message:
        "Predicting the clusters of {wildcards.experiment} by SimGCD's classifier"
    script:
        "../scripts/baselines/predict_simgcd.py"


rule cluster_by:
    input:
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        predictions="results/{experiment}/baselines/{method}.parquet",
        times="results/{experiment}/baselines/{method}.csv",
    log:
        "logs/{experiment}/baselines/{method}.log",
    benchmark:
        "logs/{experiment}/baselines/{method}.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        module=decide(stages.method_module, "method"),
        seeds=value("seeds"),
        n_clusters=value("n_clusters"),
        code=method_digest("baselines/cluster_by.py"),
    message:
        "Clustering the features of {wildcards.experiment} by {wildcards.method}"
    script:
        "../scripts/baselines/cluster_by.py"
