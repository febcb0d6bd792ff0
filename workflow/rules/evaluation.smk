rule evaluate:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        predictions=decide(stages.all_predictions),
    output:
        scores=report(
            "results/{experiment}/scores.json",
            caption="../report/scores.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "scores by seed"},
        ),
    log:
        "logs/{experiment}/evaluate.log",
    benchmark:
        "logs/{experiment}/evaluate.tsv"
    conda:
        "../../environment.yml"
    params:
        code=script_digest("evaluation/evaluate.py"),
    message:
        "Scoring the clusters of {wildcards.experiment}"
    script:
        "../scripts/evaluation/evaluate.py"


rule follow_training:
    input:
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        model=artifact("finetune", "seed{seed}/model.safetensors"),
    output:
        progress=report(
            "results/{experiment}/seed{seed}/progress.csv",
            caption="../report/progress.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "snapshots, seed {seed}"},
        ),
    log:
        "logs/{experiment}/seed{seed}/follow_training.log",
    benchmark:
        "logs/{experiment}/seed{seed}/follow_training.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    params:
        source=decide(stages.image_source),
        n_restarts=value("kmeans.n_restarts"),
        snapshot_every=value("finetuning.snapshot_every"),
        code=script_digest("evaluation/follow_training.py"),
    message:
        "Scoring the snapshots of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/evaluation/follow_training.py"


rule measure_neighbors:
    input:
        unpack(clusters_for_classes),
        images=artifact("index_images", "images.parquet"),
        features=artifact("extract_features", "features.zarr/zarr.json"),
        neighbors=artifact("mine_neighbors", "neighbors.zarr/zarr.json"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
    output:
        facts="results/{experiment}/paper_figures/neighbors.json",
        thresholds="results/{experiment}/paper_figures/figure4.csv",
        ranks="results/{experiment}/paper_figures/figure8.csv",
        removed="results/{experiment}/paper_figures/figure9.csv",
        purity="results/{experiment}/paper_figures/figure10.csv",
    log:
        "logs/{experiment}/measure_neighbors.log",
    benchmark:
        "logs/{experiment}/measure_neighbors.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    params:
        seeds=decide(stages.seeds_for_classes),
        code=script_digest("evaluation/measure_neighbors.py"),
    message:
        "Measuring how far neighbors of {wildcards.experiment} are of one class"
    script:
        "../scripts/evaluation/measure_neighbors.py"
