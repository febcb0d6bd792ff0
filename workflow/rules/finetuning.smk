rule finetune:
    input:
        unpack(weight_files),
        unpack(negative_files),
        images=artifact("index_images", "images.parquet"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        model="results/{experiment}/seed{seed}/model.safetensors",
        history="results/{experiment}/seed{seed}/history.csv",
    log:
        "logs/{experiment}/seed{seed}/finetune.log",
    benchmark:
        "logs/{experiment}/seed{seed}/finetune.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=gpus,
        device=value("machine.device"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        augmentation=value("finetuning.augmentation"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest,
        model=model,
        finetuning=training,
        exclude_known_same_label=value("negatives.exclude_known_same_label"),
        code=script_digest("finetune.py"),
    message:
        "Finetuning {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/finetune.py"


rule predict:
    input:
        images=artifact("index_images", "images.parquet"),
        model=artifact("finetune", "seed{seed}/model.safetensors"),
    output:
        predictions="results/{experiment}/seed{seed}/predictions.parquet",
        features="results/{experiment}/seed{seed}/features.zarr/zarr.json",
    log:
        "logs/{experiment}/seed{seed}/predict.log",
    benchmark:
        "logs/{experiment}/seed{seed}/predict.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=gpus,
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=view,
        code=script_digest("predict.py"),
    message:
        "Predicting the clusters of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/predict.py"
