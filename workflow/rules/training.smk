rule pretrain:
    input:
        images=artifact("index_images", "images.parquet"),
    output:
        backbone="results/{experiment}/backbone.safetensors",
        history="results/{experiment}/pretraining.csv",
    log:
        "logs/{experiment}/pretrain.log",
    benchmark:
        "logs/{experiment}/pretrain.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
    params:
        source=decide(stages.image_source),
        name=value("backbone.name"),
        options=value("backbone.options"),
        pretraining=value("pretraining.neighbors"),
        code=script_digest("training/pretrain.py"),
    message:
        "Training {params.name} on the images of {wildcards.experiment} without labels"
    script:
        "../scripts/training/pretrain.py"


rule pretrain_simgcd:
    input:
        unpack(decide(stages.start_files)),
        unpack(decide(stages.token_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        backbone="results/{experiment}/simgcd/backbone.safetensors",
        classifier="results/{experiment}/simgcd/classifier.safetensors",
        history="results/{experiment}/simgcd/history.csv",
    log:
        "logs/{experiment}/pretrain_simgcd.log",
    benchmark:
        "logs/{experiment}/pretrain_simgcd.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
    params:
        source=decide(stages.image_source),
        augmentation=value("pretraining.simgcd.augmentation"),
        precision=value("views.precision"),
        name=value("backbone.name"),
        options=value("backbone.options"),
        start=value("pretraining.simgcd.start"),
        weights_digest=weights_digest(value("pretraining.simgcd.start")),
        network=value("backbone.network"),
        n_clusters=value("n_clusters"),
        simgcd=decide(stages.simgcd),
        code=script_digest("training/pretrain_simgcd.py"),
    message:
        "Training {params.name} by SimGCD on the images of {wildcards.experiment}"
    script:
        "../scripts/training/pretrain_simgcd.py"


rule finetune:
    input:
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.negative_files)),
        unpack(decide(stages.norm_files)),
        unpack(decide(stages.start_clusters, "seed")),
        unpack(decide(stages.view_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
        positives=artifact("clean_neighbors", "positives.zarr/zarr.json"),
        known_labels=artifact("split_labels", "known_labels.zarr/zarr.json"),
    output:
        model="results/{experiment}/seed{seed}/model.safetensors",
        history=report(
            "results/{experiment}/seed{seed}/history.csv",
            caption="../report/history.rst",
            category="Experiment",
            subcategory="{experiment}",
            labels={"what": "losses, seed {seed}"},
        ),
    log:
        "logs/{experiment}/seed{seed}/finetune.log",
    benchmark:
        "logs/{experiment}/seed{seed}/finetune.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.training_gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        processes=value("machine.processes"),
    params:
        source=decide(stages.image_source),
        augmentation=value("views.augmentation"),
        precision=value("views.precision"),
        draw=value("negatives.draw"),
        pool=decide(stages.negative_pool),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        model=decide(stages.model),
        n_heads=value("finetuning.n_heads"),
        finetuning=decide(stages.finetuning),
        snapshot_every=value("finetuning.snapshot_every"),
        code=script_digest("training/finetune.py"),
    message:
        "Finetuning {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/training/finetune.py"


rule predict:
    input:
        unpack(decide(stages.frozen_features)),
        unpack(decide(stages.decoded_files)),
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
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        engine=value("machine.engine"),
        batch_size=value("machine.batch_size"),
    params:
        source=decide(stages.image_source),
        code=script_digest("training/predict.py"),
    message:
        "Predicting the clusters of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/training/predict.py"
