rule evaluate:
    input:
        images=artifact("index_images", "images.parquet"),
        labels=artifact("split_labels", "labels.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
        predictions=decide(stages.all_predictions),
    output:
        scores="results/{experiment}/scores.json",
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
        progress="results/{experiment}/seed{seed}/progress.csv",
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
