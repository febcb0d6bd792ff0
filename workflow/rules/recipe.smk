rule fit_consensus:
    input:
        unpack(decide(stages.n_clusters_file)),
        features=artifact("extract_features", "features.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        model="results/{experiment}/seed{seed}/consensus.safetensors",
        predictions="results/{experiment}/seed{seed}/consensus.parquet",
        history=report(
            "results/{experiment}/seed{seed}/consensus.csv",
            caption="../report/history.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "losses, seed {seed}"},
        ),
    log:
        "logs/{experiment}/seed{seed}/fit_consensus.log",
    benchmark:
        "logs/{experiment}/seed{seed}/fit_consensus.tsv"
    conda:
        "../../environment.yml"
    # Many small products: a second thread makes them six times slower.
    threads: 1
    params:
        n_clusters=value("n_clusters"),
        code=script_digest("recipe/fit_consensus.py"),
    message:
        "Clustering the features of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/recipe/fit_consensus.py"
