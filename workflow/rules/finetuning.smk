TOKEN_PARTS = "results/{experiment}/tokens.parts/{shard}_of_{n_shards}.json"
TOKEN_ROWS = "results/{experiment}/tokens.parts/{shard}_of_{n_shards}.bin"
VIEW_PARTS = "results/{experiment}/views.parts/{shard}_of_{n_shards}.json"
VIEW_ROWS = "results/{experiment}/views.parts/{shard}_of_{n_shards}.bin"


rule extract_tokens:
    input:
        unpack(parts(TOKEN_PARTS, TOKEN_ROWS)),
        unpack(decide(stages.trunk_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header="results/{experiment}/tokens.json",
        tokens="results/{experiment}/tokens.bin",
    log:
        "logs/{experiment}/extract_tokens.log",
    benchmark:
        "logs/{experiment}/extract_tokens.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.joining_gpus),
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        decoded=value("data.decoded"),
        view=decide(stages.view),
        views=value("views"),
        name=value("backbone.name"),
        weights=decide(stages.trunk_weights),
        weights_digest=weights_digest(decide(stages.trunk_weights)),
        network=value("backbone.network"),
        options=value("backbone.options"),
        all_tokens=decide(stages.reads_all_tokens),
        is_frozen=False,
        code=script_digest("extract_tokens.py"),
    message:
        "Keeping what the trunk says of {params.views[n_views]} views of every image of {wildcards.experiment}"
    script:
        "../scripts/extract_tokens.py"


use rule extract_tokens as extract_tokens_of_shard with:
    input:
        unpack(decide(stages.trunk_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header=temp(TOKEN_PARTS),
        tokens=temp(TOKEN_ROWS),
    log:
        "logs/{experiment}/extract_tokens.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/extract_tokens.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    message:
        "Keeping what the trunk says of shard {wildcards.shard} of the images of {wildcards.experiment}"


rule extract_views:
    input:
        unpack(parts(VIEW_PARTS, VIEW_ROWS)),
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header="results/{experiment}/views.json",
        tokens="results/{experiment}/views.bin",
    log:
        "logs/{experiment}/extract_views.log",
    benchmark:
        "logs/{experiment}/extract_views.tsv"
    conda:
        "../../environment.yml"
    threads: value("machine.threads")
    resources:
        gpu=decide(stages.joining_gpus),
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        decoded=value("data.decoded"),
        view=decide(stages.view),
        views=value("views"),
        name=value("backbone.name"),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        options=value("backbone.options"),
        all_tokens=False,
        is_frozen=True,
        code=script_digest("extract_tokens.py"),
    message:
        "Extracting features of {params.views[n_views]} views of every image of {wildcards.experiment}"
    script:
        "../scripts/extract_tokens.py"


use rule extract_views as extract_views_of_shard with:
    input:
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.decoded_files)),
        images=artifact("index_images", "images.parquet"),
    output:
        header=temp(VIEW_PARTS),
        tokens=temp(VIEW_ROWS),
    log:
        "logs/{experiment}/extract_views.{shard}_of_{n_shards}.log",
    benchmark:
        "logs/{experiment}/extract_views.{shard}_of_{n_shards}.tsv"
    resources:
        gpu=decide(stages.gpus),
        device=value("machine.device"),
        batch_size=value("machine.batch_size"),
    message:
        "Extracting features of views of shard {wildcards.shard} of the images of {wildcards.experiment}"


rule finetune:
    input:
        unpack(decide(stages.weight_files)),
        unpack(decide(stages.negative_files)),
        unpack(decide(stages.norm_files)),
        unpack(decide(stages.view_files)),
        unpack(decide(stages.decoded_files)),
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
        gpu=decide(stages.training_gpus),
        device=value("machine.device"),
        processes=value("machine.processes"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=decide(stages.view),
        augmentation=value("views.augmentation"),
        negatives=value("negatives.draw"),
        pool=decide(stages.negative_pool),
        weights=value("backbone.weights"),
        weights_digest=weights_digest(value("backbone.weights")),
        network=decide(stages.network),
        model=decide(stages.model),
        n_heads=value("finetuning.n_heads"),
        finetuning=decide(stages.training),
        snapshot_every=value("finetuning.snapshot_every"),
        code=script_digest("finetune.py"),
    message:
        "Finetuning {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/finetune.py"


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
        batch_size=value("machine.batch_size"),
    params:
        data=value("data.name"),
        root=value("data.root"),
        view=decide(stages.view),
        code=script_digest("predict.py"),
    message:
        "Predicting the clusters of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/predict.py"


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
        data=value("data.name"),
        root=value("data.root"),
        view=decide(stages.view),
        n_restarts=value("kmeans.n_restarts"),
        snapshot_every=value("finetuning.snapshot_every"),
        code=script_digest("follow_training.py"),
    message:
        "Scoring the snapshots of {wildcards.experiment}, seed {wildcards.seed}"
    script:
        "../scripts/follow_training.py"
